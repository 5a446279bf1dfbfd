"""The scripts import vLLM or transformers: the tests do it for them where they can."""

collect_ignore = [
    "fuzz_transformers.py",
    "fuzz_vllm.py",
    "transformers_oracle.py",
    "vllm_oracle.py",
]
