#!/usr/bin/env bash
# Makes what is published, into target/dist/:
#
#   lantern-cli-VERSION-MACHINE-linux.tar.gz   program, ONNX Runtime, man pages, completions, documents, SQL, unit
#   lantern-cli_VERSION-1_ARCHITECTURE.deb     the same as a package, if cargo-deb is installed
#   lantern-cli-VERSION.crate                  the sources, as cargo packages them
#   SHA256SUMS
#
# The program needs a glibc that is no older than this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

id=$(cargo pkgid --package lantern-cli)
version=${id##*[#@]}
target=${CARGO_TARGET_DIR:-target}
dist=target/dist
name=lantern-cli-$version-$(uname -m)-linux
archive=$dist/$name
# What the .deb puts below /.
root=$dist/root

scripts/setup.sh setup_library.py
cargo build --release --locked --bin lantern-cli
rm -rf "$dist"

# Below /usr/local, or /usr in the .deb.
mkdir -p "$archive"/{bin,lib/lantern-cli,share,docs/licenses}
install --mode=755 --strip "$target/release/lantern-cli" "$archive/bin/lantern-cli"
install --mode=644 .runtime/lib/libonnxruntime.so "$archive/lib/lantern-cli/"
packaging/generated.sh "$archive/bin/lantern-cli" "$archive/share"
mkdir -p "$root/etc/lantern" "$root/usr/share/doc/lantern-cli"
cp -R "$archive"/{bin,lib,share} "$root/usr/"

# To read, and to copy from.
cp -R docs/*.md docs/monitoring "$archive/docs/"
cp .runtime/lib/onnxruntime-* "$archive/docs/licenses/"
python3 scripts/third_party_licenses.py >"$archive/docs/licenses/rust-packages.txt"
cp README.md CHANGELOG.md SECURITY.md "$archive/"
cp -R sql "$archive/"
cp -R "$archive"/{docs,sql,*.md} "$root/usr/share/doc/lantern-cli/"
cp LICENSE packaging/archive/INSTALL.md "$archive/"

mkdir "$archive/etc"
cp packaging/debian/{environment,pgpass} packaging/lantern.toml "$archive/etc/"
cp "$archive"/etc/* "$root/etc/lantern/"
sed 's#=/usr/bin/lantern-cli#=/usr/local/bin/lantern-cli#' packaging/systemd/lantern.service >"$archive/etc/lantern.service"

# The same files in the same order give the same bytes.
epoch=$(git log -1 --format=%ct 2>/dev/null || date +%s)
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r-w --mtime="@$epoch" \
    --directory="$dist" "$name" | gzip --no-name --best >"$archive.tar.gz"

if command -v cargo-deb >/dev/null; then
    cargo deb --no-build --no-strip --output "$dist/"
else
    echo "release: no .deb is made: cargo-deb is missing; run: cargo install --locked cargo-deb" >&2
fi

cargo package --locked --no-verify --allow-dirty
cp "$target/package/lantern-cli-$version.crate" "$dist/"

rm -rf "$archive" "$root"
(cd "$dist" && sha256sum -- * >SHA256SUMS)
ls -l "$dist"
