#!/bin/sh
# Copies every bucket from the store to /copy, or back; thumbnails are made again. What is there is not copied again.
set -eu
printf '%s\n%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" | mc --quiet alias set store http://minio:9000 >/dev/null
for bucket in production labelstudio tracking models; do
  case $1 in
    from-store) mkdir -p "/copy/$bucket"; mc --quiet mirror "store/$bucket" "/copy/$bucket" >/dev/null ;;
    to-store) mc --quiet mirror "/copy/$bucket" "store/$bucket" >/dev/null ;;
    *) echo "copy.sh from-store | to-store" >&2; exit 2 ;;
  esac
done
