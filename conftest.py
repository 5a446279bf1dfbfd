"""Without torch the engine's doctests cannot run; everything else can."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["gpu/*"]
