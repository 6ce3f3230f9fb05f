#!/bin/sh
# Unpack packages of another Debian release than the machine's into a folder; nothing is installed.
#
#     bench/unpack.sh SUITE FOLDER PACKAGE…
#
# apt's own mirror and keyring are used, with lists and a cache apart from the machine's.
set -eu
suite=$1 folder=$2
shift 2
apart=$(mktemp -d)
trap 'rm -rf "$apart"' EXIT
mkdir -p "$apart/lists/partial" "$apart/debs" "$apart/root"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apart/sources.list"
apt() {
  apt-get -qq -o Dir::Etc::sourcelist="$apart/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::Lists="$apart/lists" -o Dir::Cache="$apart" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$apart/debs" && for package; do apt download "$package/$suite"; done)
for deb in "$apart"/debs/*.deb; do dpkg-deb -x "$deb" "$apart/root"; done
rm -rf "$folder"
mv "$apart/root" "$folder"
