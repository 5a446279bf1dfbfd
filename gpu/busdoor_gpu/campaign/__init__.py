"""The longer list of traces behind `gpu/results`, and what replays them."""
