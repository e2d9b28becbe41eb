#!/bin/sh
# Buckets, policies and one key per part. Runs at every `up`; what is there already stays, a changed secret is taken over.
set -eu
cd /setup
mc --quiet alias set store http://minio:9000 root "$MINIO_ROOT_PASSWORD" >/dev/null
for bucket in production labelstudio tracking models; do
  mc --quiet mb --ignore-existing "store/$bucket"
done

key() { # name of the policy, access key, secret key
  mc --quiet admin policy create store "$1" "policies/$1.json" >/dev/null
  mc --quiet admin user add store "$2" "$3" >/dev/null
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
