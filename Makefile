# Verbs of the README. Everything lives in .venv; nothing is installed outside this folder.
PYTHON ?= python3
# A pip index with CPU builds of torch spares several GB of CUDA packages, e.g.
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
comma := ,
# rclpy is on PyPI for x86-64 only; elsewhere the tests that need it are skipped
EXTRAS := onnx,openvino,bags,report,train,poses,label,browser,ray,test,lint$(if $(filter x86_64,$(shell uname -m)),$(comma)ros-pip)
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# the marker tells that the wheels' environment variables are set already; a child of another venv must not inherit it
CLEAN := env -u _ROS_WHEELS_BOOTSTRAP_COMPLETE -u PYTHONPATH

PEERS = $(BIN)/python -m pip install -q -c constraints.txt -r bench/requirements.txt && $(BIN)/python -m pip install -q --no-deps ros2_numpy
KILL ?= --signals KILL TERM INT
FUZZ ?= --count 20000
SOAK ?= --minutes 60
FLEET ?= --bags 200
# five processes share the tests, a file at a time, as many of them wait for other processes; JOBS=0 runs them in one.
# the fast tests wait for nothing: more processes than cores slow them down
JOBS ?= 5
check: JOBS := 2
# the tests start hundreds of Python processes; where none may keep what it compiles, each compiles the package again
PYTEST = -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help check api install soak fleet fuzz kill demo test lint bench ratios gpu rtx flywheel weak panoptic refer street street64 rooms clean

help:                ## this list
	@grep -hE '^[a-z0-9]+: .*##|^[a-z0-9]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)    ## the virtual environment, with rclpy from PyPI

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "weakseg needs Python 3.10 or newer; try make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv module: sudo apt install python3-venv"; exit 1; }
	$(CLEAN) $(BIN)/python -m pip install -q --upgrade pip setuptools wheel
	$(CLEAN) $(BIN)/python -m pip install -q $(INDEX) -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)       ## the whole pipeline on simulated streets; writes runs/demo/report.html
	$(CLEAN) $(BIN)/weakseg demo

test: $(STAMP)       ## every test; --oracles and --shared-data name the folders of optional data
	$(CLEAN) $(PYTEST) --durations=15

check: $(STAMP)      ## the fast tests, without DDS, browser and training
	$(CLEAN) $(PYTEST) -m "not dds and not browser and not slow and not gpu"

api: $(STAMP)        ## the reference of the Python API; writes build/api/weakseg_ros.html
	$(BIN)/python -m pip install -q "pdoc>=14"
	$(CLEAN) $(BIN)/python -m pdoc weakseg_ros !weakseg_ros.__main__ -o build/api

lint: $(STAMP)       ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(STAMP)      ## each stage compared with alternatives, and the whole path over DDS
	$(PEERS)
	$(CLEAN) $(BIN)/python bench/stages.py
	$(CLEAN) $(BIN)/python bench/end_to_end.py

ratios: $(STAMP)     ## the stages alone, in short; fails if a ratio to the alternatives has fallen below bench/least_ratios.json
	$(PEERS)
	$(CLEAN) $(BIN)/python bench/stages.py --runs 15 --least bench/least_ratios.json

gpu: $(STAMP)        ## engines, parity, timings and a training step on this machine's NVIDIA GPU; writes runs/gpu/summary.json
	$(CLEAN) $(BIN)/python bench/gpu.py

rtx: $(STAMP)        ## build every exported variant with TensorRT-RTX, without a GPU (95 MB from PyPI, under NVIDIA's licence)
	$(CLEAN) $(BIN)/python -m pip install -q -c constraints.txt -e ".[rtx]"
	$(CLEAN) $(BIN)/python -m pytest -q test/train/test_variants.py test/deploy/test_plans.py

VLP32 ?= ../shared/data/vlp32_drive
weak: $(STAMP)       ## the accuracy with sparse labels on the VLP-32C drive: make weak VLP32=FOLDER, which holds train.npz and val.npz
	@test -f $(VLP32)/train.npz || { echo "$(VLP32): has no train.npz; say where the VLP-32C drive lies: make weak VLP32=FOLDER"; exit 1; }
	$(CLEAN) $(BIN)/weakseg benchmark $(VLP32) --config config/benchmark/vlp32_short.yaml --out runs/weak

panoptic: $(STAMP)   ## objects from one click each on simulated streets, with handcrafted and learned distances, in a short form
	$(CLEAN) $(BIN)/python bench/panoptic.py --short

refer: $(STAMP)      ## find the object that an expression refers to, with masks for 1 % of the expressions; writes runs/refer/summary.json
	$(CLEAN) $(BIN)/python bench/refer.py

flywheel: $(STAMP)   ## select, click, retrain, gate, swap in the live node: mIoU against clicks; writes runs/flywheel/report.md
	$(CLEAN) $(BIN)/python bench/flywheel.py

kill: $(STAMP)       ## kill every verb before each of its file-system changes, fill its disk, and test that it restarts; make kill KILL="--verbs train"
	$(CLEAN) $(BIN)/python bench/kill_sweep.py $(KILL) --out runs/kill/kill.json
	$(CLEAN) $(BIN)/python bench/kill_sweep.py --full changes sizes --out runs/kill/full.json

fuzz: $(STAMP)       ## random and damaged input for every reader; make fuzz FUZZ="--targets clouds --count 10000000"
	$(CLEAN) $(BIN)/python bench/fuzz.py $(FUZZ)

soak: $(STAMP)       ## an hour at 10 Hz with constant changes: memory, latency, lost clouds; make soak SOAK="--minutes 3"
	$(CLEAN) $(BIN)/python bench/soak.py $(SOAK)

fleet: $(STAMP)      ## the bags of a fleet in one process and on Ray workers, with killed workers and damaged bags; make fleet FLEET="--bags 20"
	$(CLEAN) $(BIN)/python bench/fleet.py $(FLEET)

street: $(STAMP)     ## train the default bundle models/street again (about 100 minutes on two cores)
	$(CLEAN) $(BIN)/python bench/street.py

rooms: $(STAMP)      ## train the bundle for indoor robots models/rooms again (about half an hour on two quiet cores)
	$(CLEAN) $(BIN)/python bench/rooms.py

street64: $(STAMP)   ## train the former default bundle models/street64 again (about an hour on two cores)
	$(CLEAN) $(BIN)/python bench/street64.py

clean:               ## remove the environment and every run
	rm -rf $(VENV) runs build install log *.egg-info
