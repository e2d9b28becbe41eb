"""Every error that a user can meet. An error's docstring is its message: it says what happened and what to do.

`code` is for programs, `status` is the HTTP status that a service answers with.
"""

import inspect
from typing import Any


class ClosedloopError(Exception):
    """Something went wrong inside Closedloop. The log of the part that said so has the details."""

    code = "error"
    status = 500

    def __init__(self, **details: Any) -> None:
        self.details = details
        super().__init__(" ".join(inspect.getdoc(type(self)).split()).format(**details))  # type: ignore[union-attr]

    def explained(self) -> str:
        """The message and what is behind it, for logs and `doctor`: a page's visitor need not know."""
        cause = " ".join(str(self.__cause__ or "").split())[:500]
        return f"{self} ({cause})" if cause else str(self)

    def as_json(self) -> dict[str, Any]:
        """The one JSON shape of every error on every service: `ok`, `error` (for a person), `code` (for a program)."""
        return {"ok": False, "error": str(self), "code": self.code}


# Configuration and parts that are away


class MissingSetting(ClosedloopError):
    """The setting {name} has no value. Put it into .env or the environment; under `make run` it is made by itself."""

    code = "missing_setting"


class InvalidSetting(ClosedloopError):
    """These settings cannot be used: {faults}. Correct them in .env or in the environment, and start again."""

    code = "invalid_setting"


class WeakSecrets(ClosedloopError):
    """These secrets will not do: {faults}. Empty the weak ones in .env, run `make secrets`, and start again."""

    code = "weak_secrets"


class MissingExtra(ClosedloopError):
    """{what} is not installed here. Install it with `uv sync --inexact --extra {extra}`."""

    code = "missing_extra"


class ClusterAway(ClosedloopError):
    """The cluster at {address} did not do its work: {reason}. What was done is kept; run the same command again."""

    code = "cluster_away"


class DatabaseOutdated(ClosedloopError):
    """The database is at revision {found}, this program needs {needed}. Run `closedloop migrate` once."""

    code = "database_outdated"
    status = 503


class DatabaseAway(ClosedloopError):
    """The database does not answer, so nothing was stored. Try again in a moment; `closedloop doctor` says more."""

    code = "database_away"
    status = 503


class StoreAway(ClosedloopError):
    """The picture store is away or full, so nothing was kept. Try again in a moment; `closedloop doctor` says more."""

    code = "store_away"
    status = 503


class InferenceAway(ClosedloopError):
    """The inference service gave no answer in time ({reason}). The picture is kept and answered later."""

    code = "inference_away"
    status = 503


class InferenceRefused(ClosedloopError):
    """The inference service cannot answer about this picture: {reason}."""

    code = "inference_refused"


class LabelStudioAway(ClosedloopError):
    """Label Studio does not answer at {url} ({reason}). Nothing is lost: tasks and answers wait until it is back."""

    code = "label_studio_away"
    status = 503


class LabelStudioRefused(ClosedloopError):
    """Label Studio refused what it was asked ({reason}). Only this queue waits; it is tried again at the next sync."""

    code = "label_studio_refused"
    status = 503


class LabelStudioSync(ClosedloopError):
    """Label Studio could not read the tasks of {project}/{queue} ({reason}). It is tried again at the next sync."""

    code = "label_studio_sync"
    status = 503


class LeaseTaken(ClosedloopError):
    """ "{name}" is being done by another process at this moment. Wait until it has finished, then try again."""

    code = "busy"
    status = 503


class LiveChanged(ClosedloopError):
    """Another release of {project}'s {head} went live while a candidate was trained, which was not compared with it.
    Nothing was released. Train again, or wait: the trainer does so when new answers come.
    """

    code = "live_changed"
    status = 409


class LeaseLost(ClosedloopError):
    """ "{name}" took so long that another process took it over; what this one made was dropped."""

    code = "lease_lost"
    status = 503


# Requests


class BadRequest(ClosedloopError):
    """The request cannot be understood: {reason}."""

    code = "bad_request"
    status = 400


class CrossSite(ClosedloopError):
    """This request came from a page of another site and was refused. Use this site's own page."""

    code = "cross_site"
    status = 403


class TooManyRequests(ClosedloopError):
    """That was too often in too short a time. Try again in {seconds} s."""

    code = "too_many_requests"
    status = 429


class TooLate(ClosedloopError):
    """The answer would have come after its deadline, so nobody worked on it. Ask again, with more time."""

    code = "too_late"
    status = 504


class VectorsNotRead(ClosedloopError):
    """The pictures of "{project}" are still being read for the search of similar ones. Try again in a moment."""

    code = "vectors_not_read"
    status = 503


class UnknownProject(ClosedloopError):
    """There is no project "{project}". `closedloop project list` shows those there are."""

    code = "unknown_project"
    status = 404


class UnknownPrediction(ClosedloopError):
    """There is no prediction with this id. Upload the picture again."""

    code = "unknown_prediction"
    status = 404


class UnknownClass(ClosedloopError):
    """ "{label}" is not a class of the project "{project}". Its classes are: {classes}."""

    code = "unknown_class"
    status = 422


class UnknownPicture(ClosedloopError):
    """There is no such picture here: it may have been removed."""

    code = "unknown_picture"
    status = 404


class PictureRemoved(ClosedloopError):
    """A picture was removed while it was being learnt from. Train again: the next dataset is without it."""

    code = "picture_removed"
    status = 409


class LinkOver(ClosedloopError):
    """This link to a picture has ended, or is not one of ours. Ask for a new one."""

    code = "link_over"
    status = 403


class KeyUsedForAnother(ClosedloopError):
    """This Idempotency-Key was already used for another picture. Use a new key for a new picture."""

    code = "idempotency_key_reused"
    status = 422


# People


class SignInNeeded(ClosedloopError):
    """This wants a signed-in account. Sign in, or send a token: `Authorization: Bearer cl_...`."""

    code = "sign_in_needed"
    status = 401


class ProjectClosed(SignInNeeded):
    """This project is for people with an account or an invitation. Sign in, or ask its owner for a link."""

    code = "project_closed"


class NotAllowed(ClosedloopError):
    """Your account may not do this here. An owner of the project can change that."""

    code = "not_allowed"
    status = 403


class WrongSignIn(ClosedloopError):
    """The address or the password is wrong."""

    code = "wrong_sign_in"
    status = 401


class WrongPassword(ClosedloopError):
    """That is not the account's password."""

    code = "wrong_password"
    status = 422


class WeakPassword(ClosedloopError):
    """A password has {shortest} to {longest} characters."""

    code = "weak_password"
    status = 422


class UnusableEmail(ClosedloopError):
    """ "{email}" is not an e-mail address."""

    code = "unusable_email"
    status = 422


class AccountExists(ClosedloopError):
    """{email} has an account already. Sign in with it."""

    code = "account_exists"
    status = 422


class NoSuchAccount(ClosedloopError):
    """There is no account of {email}. `closedloop account list` shows those there are."""

    code = "no_such_account"
    status = 404


class InvitationOver(ClosedloopError):
    """This invitation has been used, has ended or was taken back. Ask for a new one."""

    code = "invitation_over"
    status = 404


class FormOutdated(ClosedloopError):
    """The page was open for too long, or in a browser that takes no cookies. Load it again and repeat what you did."""

    code = "form_outdated"
    status = 400


# Pictures


class EmptyUpload(ClosedloopError):
    """No picture came with the request. Send one file in the multipart field "file"."""

    code = "no_picture"
    status = 400


class UploadTooLarge(ClosedloopError):
    """The upload is larger than {limit_mb} MB. Make the picture smaller and send it again."""

    code = "too_large"
    status = 413


class TooManyPixels(ClosedloopError):
    """The picture has {width} x {height} pixels; at most {limit_mp} megapixels and {side} px a side are taken."""

    code = "too_many_pixels"
    status = 413


class NotAPicture(ClosedloopError):
    """This file is not a JPEG, PNG or WebP picture. Save it as one of these and send it again."""

    code = "not_a_picture"
    status = 415


class MovingPicture(ClosedloopError):
    """The picture is animated. Send a single frame."""

    code = "moving_picture"
    status = 422


class BrokenPicture(ClosedloopError):
    """The picture cannot be decoded: it is damaged or was cut off on its way. Send it again."""

    code = "broken_picture"
    status = 422


# Sets


class SetSize(ClosedloopError):
    """A set has 2 to 12 pictures; this one has {have}. Send that many files in the multipart field "file"."""

    code = "set_size"
    status = 422


class SamePictureTwice(ClosedloopError):
    """The pictures {first} and {second} of the set are the same. Send each one once."""

    code = "same_picture_twice"
    status = 422


class PictureOfSet(ClosedloopError):
    """Picture {number} of the set: {reason}"""

    code = "picture_of_set"

    @classmethod
    def of(cls, number: int, fault: ClosedloopError) -> "PictureOfSet":
        """What is wrong with one picture (counted from 1), with the fault's own code and status."""
        error = cls(number=number, reason=str(fault))
        error.code, error.status = fault.code, fault.status
        return error


class MixedSet(ClosedloopError):
    """The set {name} has pictures of "{first}" and of "{second}". A set has pictures of one project only."""

    code = "mixed_set"
    status = 422


class UnknownSet(ClosedloopError):
    """There is no such set here: it may have been removed."""

    code = "unknown_set"
    status = 404


class UnusableBox(ClosedloopError):
    """The crop {box} cannot be used: {reason}."""

    code = "unusable_box"
    status = 422


# Manifests


class ManifestFaults(ClosedloopError):
    """{file} is not a valid manifest: {faults}"""

    code = "bad_manifest"
    status = 422


class ClassesChanged(ClosedloopError):
    """The classes of "{project}" may only be appended to: they were {old}, the manifest says {new}."""

    code = "classes_changed"
    status = 422


class UnknownHead(ClosedloopError):
    """{project} has no head {head}. Name one of its own, as in --head: {heads}."""

    code = "unknown_head"
    status = 422


class WrongKind(ClosedloopError):
    """The project "{project}" is a {kind}; this is for a {wanted}. A selection takes sets of pictures
    (`closedloop import-sets`, POST /p/{project}/sets), a classification single ones (`closedloop import`, POST
    /p/{project}/predict)."""

    code = "wrong_kind"
    status = 422


class RemovedMeanwhile(ClosedloopError):
    """The same picture was removed from the project at this moment. Import it again."""

    code = "removed_meanwhile"
    status = 503


class ReleaseChanged(ClosedloopError):
    """{live} is live now, no longer {expected}: look again before you roll back."""

    code = "release_changed"
    status = 409


class ProjectExists(ClosedloopError):
    """There is a project "{project}" already. Choose another id, or change that one on its page."""

    code = "project_exists"
    status = 422


class ImportedOtherwise(ClosedloopError):
    """The same picture was imported as "{former}" before, which stays. Leave it in one folder only."""

    code = "imported_otherwise"
    status = 422


# Training and releases


class NotQuantized(ClosedloopError):
    """The encoder was not put into 8-bit numbers: {reason}."""

    code = "not_quantized"
    status = 422


class TooFewAnswers(ClosedloopError):
    """{project} has {have} usable answers for its {head}{of_classes}, about {different} clearly different pictures or
    sets; training needs at least {need} answers{and_classes}, about 2 that differ.
    """

    code = "too_few_answers"
    status = 422


class NothingToRollBack(ClosedloopError):
    """{project} has no earlier release of the head {head} to go back to."""

    code = "nothing_to_roll_back"
    status = 422


class UnknownRelease(ClosedloopError):
    """There is no release {release}. `closedloop releases PROJECT` shows those there are."""

    code = "unknown_release"
    status = 404


class AmbiguousRelease(ClosedloopError):
    """{release} is the name of more than one release. Say which: {names}."""

    code = "ambiguous_release"
    status = 422


class CannotPin(ClosedloopError):
    """{release} cannot be pinned: {reason}."""

    code = "cannot_pin"
    status = 422


class NotPinned(ClosedloopError):
    """No release of {project}'s head {head} is pinned: candidates that pass the gate go live."""

    code = "not_pinned"
    status = 422


class Pinned(ClosedloopError):
    """{release} of {project} is pinned. `closedloop unpin {project}` lets another one take its place."""

    code = "pinned"
    status = 409


class DatasetLost(ClosedloopError):
    """The frozen dataset {key} cannot be used: {reason}. Put it back from a backup."""

    code = "dataset_lost"


class NotReproducible(ClosedloopError):
    """{release} cannot be made again: {reason}."""

    code = "not_reproducible"
    status = 422


class UnknownTrace(ClosedloopError):
    """Nothing here is called {name}. Give a picture's id (32 characters 0-9 a-f), the number of an annotation in Label
    Studio, or a release (r0001-...).
    """

    code = "unknown_trace"
    status = 404


class BadArtefact(ClosedloopError):
    """The release {release} is not used: {reason}."""

    code = "bad_artefact"


class EncoderUnavailable(ClosedloopError):
    """The encoder {name} cannot be loaded: {reason}"""

    code = "encoder_unavailable"
    status = 503


class NoEncoderYet(ClosedloopError):
    """No encoder was chosen yet. Start the inference service once: it chooses one."""

    code = "no_encoder_yet"
    status = 503


class EncoderNotSwitched(ClosedloopError):
    """The encoder stays {current}: with {name}, {reason}."""

    code = "encoder_not_switched"
    status = 422


# The machine


class CannotStart(ClosedloopError):
    """{problem} {remedy}"""

    code = "cannot_start"


# Imports


class UnusableTable(ClosedloopError):
    """{file} cannot be imported: {reason}."""

    code = "unusable_table"
    status = 422


class UnreadableRow(ClosedloopError):
    """The row cannot be read: {reason}."""

    code = "unreadable_row"
    status = 422


class UnusableTime(ClosedloopError):
    """The time {text} cannot be read. Write it as 2026-01-31T12:00:00Z, or as seconds or milliseconds since 1970."""

    code = "unusable_time"
    status = 422


class UnusablePath(ClosedloopError):
    """The path {path} cannot be used: {reason}."""

    code = "unusable_path"
    status = 422


class MissingFile(ClosedloopError):
    """There is no file {path} in {root}."""

    code = "missing_file"
    status = 422


class UnusableFile(ClosedloopError):
    """{path}: {reason}."""

    code = "unusable_file"
    status = 422


class NestedFolder(ClosedloopError):
    """There is a folder in it, {name}. A set is one sub-folder, with its pictures and nothing else in it."""

    code = "nested_folder"
    status = 422


class NoSetFolder(ClosedloopError):
    """It lies in no sub-folder. A set is one sub-folder, with its pictures in it."""

    code = "no_set_folder"
    status = 422


class ImportedSetSize(ClosedloopError):
    """A set has 2 to 12 pictures; this one has {have}."""

    code = "imported_set_size"
    status = 422


class SameFileTwice(ClosedloopError):
    """{first} and {second} are the same picture. A set has each picture once."""

    code = "same_file_twice"
    status = 422


class PickedOtherwise(ClosedloopError):
    """The same set was imported as picked otherwise before: {former} was the best one. That stays."""

    code = "picked_otherwise"
    status = 422


class CroppedOtherwise(ClosedloopError):
    """The same picture was imported as cropped to {former} before, which stays."""

    code = "cropped_otherwise"
    status = 422


class FitsNoProject(ClosedloopError):
    """The folder {folder} fits no project: {reason}."""

    code = "fits_no_project"
    status = 422


class FitsTwoProjects(ClosedloopError):
    """The folder {folder} at {at} fits two projects, "{first}" and "{second}"."""

    code = "fits_two_projects"
    status = 422


class OfAnotherProject(ClosedloopError):
    """{path} lies in the folder of the project "{other}", and this is "{project}"."""

    code = "of_another_project"
    status = 422
