"""The scripts import vLLM: the test does it for them where it can."""

collect_ignore = ["fuzz_vllm.py", "vllm_oracle.py"]
