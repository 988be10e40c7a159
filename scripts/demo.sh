#!/usr/bin/env bash
# From a bare machine to pictures: installs what is needed, builds the command-line tool, draws one picture with the 2:4
# activation-sparse model, then six prompts in every mode, labelled, with a table of accuracy, PSNR and time.
source "$(dirname "$0")/setup.sh"

install_packages "${PACKAGES[@]}"
# The demo needs torch alone; all at once, since test.sh needs the rest.
install_python_packages requirements.txt requirements-test-assets.txt
build engine rtlynx

readonly RTLYNX=build/engine/bin/rtlynx MODEL=models/mini-flux
mkdir -p out

say "one picture: out/fox.png"
"$RTLYNX" generate -m "$MODEL" -p "a fox above a red apple on a striped blue background" \
  --mode sa-nc-lora --plan sparse -o out/fox.png

say "every mode side by side: out/demo.png"
"$RTLYNX" evaluate -m "$MODEL" --num-prompts "${DEMO_PROMPTS:-24}" --modes dense,sa,sa-nc,sa-nc-lora \
  --plan sparse --sheet out/demo.png -o out/demo
cat out/demo.md
say "look at out/demo.png (rows: modes; columns: prompts) and out/fox.png"
