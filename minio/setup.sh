#!/bin/sh
# Buckets, policies and one key per part. Runs at every `up`; what is there already stays, a changed secret is taken over.
# Secrets go to mc through its standard input: they stand on no command line.
set -eu
cd /setup
printf '%s\n%s\n' root "$MINIO_ROOT_PASSWORD" | mc --quiet alias set store http://minio:9000 >/dev/null
for bucket in production labelstudio tracking models thumbnails; do
  mc --quiet mb --ignore-existing "store/$bucket"
done

key() { # name of the policy, access key, secret key
  mc --quiet admin policy create store "$1" "policies/$1.json" >/dev/null
  printf '%s\n%s\n' "$2" "$3" | mc --quiet admin user add store >/dev/null
  case $(mc --json admin user info store "$2") in # the image has a shell and mc, and little else
    *"\"policyName\":\"$1\""*) ;;
    *) mc --quiet admin policy attach store "$1" --user "$2" >/dev/null ;;
  esac
  echo "key $2 has the policy $1"
}
key web web "$S3_SECRET_WEB"
key inference inference "$S3_SECRET_INFERENCE"
key sampler sampler "$S3_SECRET_SAMPLER"
key trainer trainer "$S3_SECRET_TRAINER"
key label-studio label-studio "$S3_SECRET_LABEL_STUDIO"
key operator "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"

# The operator's key has a name of its own: one that .env named before must not go on opening every bucket.
mc --json admin user list store | while read -r user; do
  name=${user#*'"accessKey":"'}
  name=${name%%'"'*}
  case $user in
    *'"policyName":"operator"'*)
      [ "$name" = "$AWS_ACCESS_KEY_ID" ] || { mc --quiet admin user remove store "$name"; echo "key $name is removed"; } ;;
  esac
done
