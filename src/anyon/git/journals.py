"""The journal of a merge that brings a checkout's files along, and how it is put right.

``.git/anyon-merge`` holds four lines: target, old commit, new commit, checkout. It is written
before the first file and removed after the ref. One that is found by a later operation says that
the steps were cut off: the files are then brought to what the ref says, which is old or new.
"""

# A file may be set to what the ref says if all it holds is (the beginning of) one of the two
# versions that were being written: then it is nobody's work. Others are left as they are.
RECOVER = r"""
journal=.git/anyon-merge
rm -f "$journal.part"
[ -e "$journal" ] || exit 0
{ read -r target; read -r old; read -r new; read -r at; } <"$journal"
now=$(git rev-parse -q --verify "refs/heads/$target^{commit}") || now=
in_target() { git -C "$at" -c safe.directory="$at" "$@"; }
[ -d "$at" ] && [ "$(in_target symbolic-ref -q HEAD)" = "refs/heads/$target" ] || now=
if [ "$now" = "$old" ] || [ "$now" = "$new" ]; then
  cd -- "$at"
  export GIT_CONFIG_COUNT=$((GIT_CONFIG_COUNT + 1))
  export "GIT_CONFIG_KEY_$((GIT_CONFIG_COUNT - 1))=safe.directory"
  export "GIT_CONFIG_VALUE_$((GIT_CONFIG_COUNT - 1))=$at"
  git diff-tree -r --no-renames --name-only -z "$old" "$new" | xargs -0 -n 1 sh -c '
    old=$1 new=$2 now=$3 file=$4
    begins() {
      if [ -L "$file" ]; then
        [ "$(readlink "$file")" = "$(git cat-file blob "$1:$file" 2>/dev/null)" ]
      elif [ -f "$file" ]; then
        size=$(wc -c <"$file")
        git cat-file --filters "$1:$file" 2>/dev/null | head -c "$size" | cmp -s - "$file"
      else
        [ ! -e "$file" ]
      fi
    }
    if begins "$old" || begins "$new"; then
      if [ -n "$(git ls-tree "$now" -- "$file")" ]; then
        git ls-tree -z "$now" -- "$file" | git update-index -z --index-info
        rm -f -- "$file"
        printf "%s\0" "$file" | git checkout-index -f -z --stdin
        printf "%s\0" "$file" | git update-index -q -z --stdin
      else
        git update-index --force-remove -- "$file"
        rm -f -- "$file"
      fi
    fi' sh "$old" "$new" "$now"
fi
rm -f /workspace/"$journal"
"""
