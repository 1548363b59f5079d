# make setup | demo | test | test-slow | lint | clean. Each sets up .venv first when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= data,render,serve,dev,deepspeed,qlora,gguf,wandb
STAMP := $(VENV)/.installed

# The demo, in the numbers that `.ci/run` makes smaller; DEMO_TRAIN takes key=value settings of the recipe.
DEMO_OUT ?= runs/demo
# The category that the embedded model has never seen, the pictures of it, and those of all categories that it knows.
DEMO_CATEGORY ?= forklift
DEMO_IMAGES ?= 400
DEMO_KNOWN_IMAGES ?= 1120
DEMO_TRAIN ?=
DEMO_SEED ?= 0
# The picture it is asked about: so many lines down the category's held-out list, the box from its annotation.
DEMO_PICTURE ?= 3
DEMO_ASK ?= Which way does the $(DEMO_CATEGORY) face?
DEMO_TEST = --data $(DEMO_OUT)/data --categories $(DEMO_OUT)/names.txt

# Everything runs from files at hand, on all cores.
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: setup demo test test-slow lint clean

setup: $(STAMP)

# torch by its exact pin first: an open range may choose a build with gigabytes of GPU packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# What the model knows is in the data too, and in the benchmark: a category learnt alone costs it the others.
demo: $(STAMP)
	rm -rf $(addprefix $(DEMO_OUT)/,new rendered data before train)
	mkdir -p $(DEMO_OUT)
	$(BIN)/python -c "import json; from llava_pose.folders import EMBEDDED_MODEL as model; \
	    print(*json.loads((model / 'config.json').read_text())['pose_categories'], sep='\n')" > $(DEMO_OUT)/known.txt
	(cat $(DEMO_OUT)/known.txt; echo $(DEMO_CATEGORY)) > $(DEMO_OUT)/names.txt
	$(BIN)/python data_prep/render.py --out $(DEMO_OUT)/new --images $(DEMO_IMAGES) \
	    --categories $(DEMO_CATEGORY) --seed $(DEMO_SEED)
	$(BIN)/python data_prep/render.py --out $(DEMO_OUT)/rendered --images $(DEMO_KNOWN_IMAGES) \
	    --categories $$(cat $(DEMO_OUT)/known.txt) --seed $(DEMO_SEED)
	cp -R $(DEMO_OUT)/new/. $(DEMO_OUT)/rendered
	$(BIN)/python data_prep/imagenet3d.py --root $(DEMO_OUT)/rendered --out $(DEMO_OUT)/data --crop object --size 192
	$(LAUNCH) eval/benchmark.py --model embedded $(DEMO_TEST) --out $(DEMO_OUT)/before
	$(LAUNCH) train/finetune.py --config train/recipes/demo.yaml \
	    data=$(DEMO_OUT)/data output_dir=$(DEMO_OUT)/train seed=$(DEMO_SEED) $(DEMO_TRAIN)
	$(LAUNCH) eval/benchmark.py --model $(DEMO_OUT)/train/final $(DEMO_TEST) --out $(DEMO_OUT) --overwrite
	$(BIN)/python eval/compare.py $(DEMO_OUT)/before $(DEMO_OUT) --apart $(DEMO_CATEGORY) --out $(DEMO_OUT)/learnt.json
	name=$(DEMO_CATEGORY)/$$(sed -n $(DEMO_PICTURE)p $(DEMO_OUT)/rendered/lists/$(DEMO_CATEGORY)_imagenet_val.txt) && \
	    box=$$($(BIN)/python -c "import sys; from llava_pose.scene import read_annotations as read; \
	        print(*read(sys.argv[1])[0]['bbox'], sep=',')" $(DEMO_OUT)/rendered/annotations/$$name.npz) && \
	    $(BIN)/llava-pose chat $(DEMO_OUT)/rendered/images/$$name.JPEG --box "$$box" \
	    --model $(DEMO_OUT)/train/final --ask "$(DEMO_ASK)" --save $(DEMO_OUT)/answer.png

# A process a core, each with one thread: more threads would wait for one another.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope -m "not slow"

# What takes minutes rather than seconds: runs killed twenty times, every way to split a batch, the server under fuzzing.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
