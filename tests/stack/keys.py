"""What each part's key may do in MinIO, and what it is refused."""

from tests.stack.stack import Stack

# who: {(action, place): allowed}
RIGHTS = {
    "web": {
        ("put", "production/probe/web"): True,
        ("get", "production/probe/x"): True,
        ("list", "production"): False,
        ("remove", "production/probe/web"): False,
        ("put", "thumbnails/probe/web"): True,
        ("remove", "thumbnails/probe/web"): False,
        ("list", "models"): False,
        ("put", "models/probe/web"): False,
        ("put", "labelstudio/tasks/probe/web"): False,
    },
    "inference": {
        ("get", "models/probe/x"): True,
        ("list", "models"): True,
        ("put", "models/probe/inference"): False,
        ("get", "production/probe/x"): False,
        ("put", "production/probe/inference"): False,
        ("list", "labelstudio"): False,
    },
    "sampler": {
        ("get", "production/probe/x"): True,
        ("put", "labelstudio/tasks/probe/sampler"): True,
        ("put", "tracking/probe/sampler"): True,
        ("list", "models"): False,
        ("put", "models/probe/sampler"): False,
    },
    "trainer": {
        ("get", "production/probe/x"): True,
        ("put", "models/probe/trainer"): True,
        ("remove", "models/probe/trainer"): False,
        ("put", "production/probe/trainer"): False,
        ("get", "labelstudio/tasks/probe/x"): False,
    },
    "label-studio": {
        ("get", "production/probe/x"): True,
        ("get", "labelstudio/tasks/probe/x"): True,
        ("put", "labelstudio/output/probe/ls"): True,
        ("put", "labelstudio/tasks/probe/ls"): False,
        ("put", "production/probe/ls"): False,
        ("get", "tracking/probe/x"): False,
        ("list", "models"): False,
    },
    "operator": {("put", "models/probe/operator"): True, ("administer", ""): False},
    "nobody": {("list", "production"): False, ("get", "production/probe/x"): False},
}
COMMANDS = {
    "get": "mc cat {alias}/{place}",
    "put": "echo probe | mc pipe {alias}/{place}",
    "list": "mc ls {alias}/{place}",
    "remove": "mc rm {alias}/{place}",
    "administer": "mc admin user list {alias}",
}


def check_former_operator(stack: Stack) -> None:
    """Give the operator another key; raises AssertionError where the former one still opens the store."""
    former = stack.values["AWS_ACCESS_KEY_ID"], stack.values["AWS_SECRET_ACCESS_KEY"]
    stack.set(AWS_ACCESS_KEY_ID=f"another{former[0][:8]}")
    stack.compose("run", "--rm", "-T", "--no-deps", "buckets")
    now = stack.values["AWS_ACCESS_KEY_ID"], stack.values["AWS_SECRET_ACCESS_KEY"]
    for (key, secret), opens in ((former, False), (now, True)):
        script = f"export MC_HOST_s=http://{key}:{secret}@minio:9000; mc ls s/models && echo opened || true"
        said = stack.compose("run", "--rm", "-T", "--no-deps", "buckets", "-c", script)
        assert ("opened" in said) == opens, f"{key} {'does not open' if opens else 'still opens'} the store"


def check(stack: Stack) -> None:
    """Try every right with every key; raises AssertionError with those that are not as RIGHTS says."""
    values = stack.values
    pairs = {
        "web": ("web", values["S3_SECRET_WEB"]),
        "inference": ("inference", values["S3_SECRET_INFERENCE"]),
        "sampler": ("sampler", values["S3_SECRET_SAMPLER"]),
        "trainer": ("trainer", values["S3_SECRET_TRAINER"]),
        "label-studio": ("label-studio", values["S3_SECRET_LABEL_STUDIO"]),
        "operator": (values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"]),
        "nobody": ("web", "not-the-secret-of-web"),
    }
    alias = {who: who.replace("-", "_") for who in RIGHTS}
    lines = [f"export MC_HOST_{alias[who]}=http://{key}:{secret}@minio:9000" for who, (key, secret) in pairs.items()]
    lines += [
        f"echo probe | mc --quiet pipe operator/{place}/probe/x >/dev/null"
        for place in ("production", "models", "tracking", "labelstudio/tasks")
    ]
    for who, rights in RIGHTS.items():
        for (action, place), _ in rights.items():
            command = COMMANDS[action].format(alias=alias[who], place=place)
            lines.append(f"if {{ {command}; }} >/dev/null 2>&1; then echo '{who} {action} {place} yes'; "
                         f"else echo '{who} {action} {place} no'; fi")  # fmt: skip
    for place in ("production", "models", "tracking", "labelstudio/tasks", "labelstudio/output", "thumbnails"):
        lines.append(f"mc --quiet rm --recursive --force operator/{place}/probe >/dev/null")
    said = stack.compose("run", "--rm", "-T", "--no-deps", "buckets", "-c", "\n".join(lines)).splitlines()
    expected = [
        f"{who} {action} {place} {'yes' if allowed else 'no'}"
        for who, rights in RIGHTS.items()
        for (action, place), allowed in rights.items()
    ]
    found = [line for line in said if line.split(" ", 1)[0] in RIGHTS]
    assert found == expected, f"not as it should be: {sorted(set(found) ^ set(expected))}"
