"""Misuse of the Python API ends in a sentence there, not deep in numpy or pydantic."""

import math

import pandas as pd
import pytest

import busdoor
import busdoor_workloads
from busdoor.core.compiled import is_compiled
from busdoor.kv.config import KVConfig
from busdoor_workloads import workload_from_table

# What is typed, and how its sentence begins.
MISUSES = {
    "busdoor.Trace(arrival_s=None,input_tokens=[1],output_tokens=[1])": "arrival_s is None; it "
    "must be a list o",
    'made(arrival_s="abc")': "arrival_s is 'abc'; it must be a list or array of numbers, one per "
    "request",
    'made(input_tokens=["a","b"])': "input_tokens in row 0 is 'a'; it must be a number",
    'made(input_tokens=["1","2"])': "input_tokens in row 0 is '1'; it must be a number",
    "made(arrival_s=[[0,1],[2,3]])": "arrival_s is [[0, 1], [2, 3]]; it must be a list or array "
    "of numbers, one",
    "made(arrival_s=3)": "arrival_s is 3; it must be a list or array of numbers, one per request",
    "made(arrival_s=[0,nan])": "arrival_s in row 1 is nan; it must be 0 or later",
    "made(input_tokens=[1,nan])": "input_tokens in row 1 is nan; it must be a whole number",
    "made(output_tokens=[1,-2])": "output_tokens in row 1 is -2; it must be at least 1",
    "made(output_tokens=[1,2.5])": "output_tokens in row 1 is 2.5; it must be a whole number",
    "made(output_tokens=[1,2**70])": "output_tokens in row 1 is 1180591620717411303424; it must "
    "be a number of ",
    "made(output_tokens=[1,1e30])": "output_tokens in row 1 is 1e+30; it must be a whole number "
    "that floats hol",
    "made(output_tokens=[True,True])": "output_tokens in row 0 is True; it must be a number",
    "made(output_tokens=[1])": "output_tokens has 1 rows but arrival_s has 2; they must agree",
    'made(arrival_s=pd.to_datetime(["2020-01-01","2020-01-02"]))': "arrival_s in row 0 is "
    "datetime.datetime(202",
    'made(arrival_s={"a":1})': "arrival_s is {'a': 1}; it must be a list or array of numbers, one "
    "per request",
    "made(arrival_s={0,1})": "arrival_s is {0, 1}; it must be a list or array of numbers, one per "
    "request",
    'made(concurrency="x")': "concurrency is 'x'; it must be a whole number, 1 or more",
    "made(concurrency=0.5)": "concurrency is 0.5; it must be a whole number, 1 or more",
    "made(hash_ids=3)": "hash_ids is 3; it must be a list of lists of block ids, one per request",
    "made(hash_ids=[1,2],block_size=16)": "a row of hash_ids is 1; it must be a list of block ids",
    'made(hash_ids=[(1,),("a",)],block_size="16")': "block_size is '16'; it must be a whole "
    "number, 1 or more",
    "made(hash_ids=[(1,),(2,)],block_size=-1)": "block_size is -1; it must be a whole number, 1 "
    "or more",
    "made(name=3)": "name is 3; it must be a string",
    'made(name="a\\0")': "the trace's name 'a\\x00' has a character that cannot be shown; use "
    "another name",
    "made(metadata=3)": "metadata is 3; it must be a mapping",
    'made(timeout_s="x")': "timeout_s is 'x'; it must be a list or array of numbers, one per "
    "request",
    'made(session_id=["a","b"],turn=[0,0])': "session_id in row 0 is 'a'; it must be a number",
    'trace.select("x")': "rows is 'x'; it must be row numbers below 2, or a mask of 2 booleans",
    "trace.select([7])": "rows is [7]; it must be row numbers below 2, or a mask of 2 booleans",
    "trace.select([0.5])": "rows is [0.5]; it must be row numbers below 2, or a mask of 2 booleans",
    "trace.select([True])": "rows is [True]; it must be row numbers below 2, or a mask of 2 "
    "booleans",
    "trace.select(None)": "rows is None; it must be row numbers below 2, or a mask of 2 booleans",
    "trace.select([1,0])": "arrival_s in row 1 is 0.0; it must be in order of arrival",
    'trace.with_arrivals("x")': "arrival_s is 'x'; it must be a list or array of numbers, one per "
    "request",
    'trace.scale_time("2")': "time_scale is '2'; it must be a number, more than 0",
    "trace.scale_time(nan)": "time_scale is nan; it must be a number, more than 0",
    "trace.scale_time(inf)": "time_scale is inf; it must be a number, more than 0 and finite",
    "trace.scale_time(None)": "time_scale is None; it must be a number, more than 0",
    'trace.at_rate("2")': "request_rate is '2'; it must be a number, more than 0",
    "trace.at_rate(nan)": "request_rate is nan; it must be a number, more than 0",
    "trace.at_rate(inf)": "request_rate is inf; it must be a number, more than 0 and finite",
    "trace.at_rate(-1)": "request_rate is -1; it must be a number, more than 0",
    "busdoor.Trace.from_frame([1,2])": "a trace can be made of a data frame, not of list",
    "busdoor.Trace.from_frame(pd.DataFrame())": "frame has no column input_tokens; it has none",
    "busdoor.Workload()": "workload 'workload' needs input_tokens and output_tokens, or lengths "
    "instead of both",
    'busdoor.Workload(input_tokens="x",output_tokens=3)': "Workload, input_tokens: 'x' is neither "
    "a number of t",
    "busdoor.Workload(input_tokens=-1,output_tokens=3)": "Workload, input_tokens: fixed: tokens "
    "is -1; input sh",
    "busdoor.Workload(3,4)": "Workload: 0 is 3; unexpected positional argument",
    'busdoor.Workload(input_tokens=3,output_tokens=3,arrival="x")': "Workload, arrival: 'x' is "
    "neither a reques",
    "busdoor.Workload(input_tokens=3,output_tokens=3,arrival=-1)": "Workload, arrival: poisson: "
    "request_rate is",
    "busdoor.Workload(input_tokens=3,output_tokens=3,arrival=nan)": "Workload, arrival: poisson: "
    "request_rate i",
    "workload_from_table(3)": "the workload is 3; it must be a table: a mapping of names to values",
    'workload_from_table({"base":3})': "there is no workload 3; it is one of agentic, "
    "anyscale_128, any",
    'workload_from_table({"base":["a"]})': "there is no workload ['a']; it is one of agentic, "
    "anyscale_",
    'workload_from_table({3:"chat"})': "the key 3 of the workload is 3; it must be a name",
    'workload_from_table({"base":"chat","request_rate":"x"})': "request_rate is 'x'; it must be a "
    "numbe",
    'busdoor_workloads.resolve("chat").at_rate("3")': "request_rate is '3'; it must be a number "
    "of requests per",
    'busdoor_workloads.resolve("chat").at_rate(nan)': "request_rate is nan; it must be a number "
    "of requests per",
    'busdoor_workloads.resolve("chat").at_rate(True)': "poisson request_rate = True: it must be "
    "a number, not",
    'busdoor_workloads.resolve("chat").generate(num_requests="3")': "num_requests is '3'; it must "
    "be a whole nu",
    'busdoor_workloads.resolve("chat").generate(num_requests=2.5)': "num_requests is 2.5; it must "
    "be a whole nu",
    'busdoor_workloads.resolve("chat").generate(num_requests=-1)': "num_requests is -1; it must "
    "be a whole numb",
    'busdoor_workloads.resolve("chat").generate(num_requests=nan)': "num_requests is nan; it must "
    "be a whole nu",
    'busdoor_workloads.resolve("chat").generate("x")': "seed is 'x'; it must be a whole number, 0 "
    "or more",
    'busdoor_workloads.resolve("chat").generate(-1)': "seed is -1; it must be a whole number, 0 "
    "or more",
    'busdoor_workloads.resolve("chat").generate(1.5)': "seed is 1.5; it must be a whole number, 0 "
    "or more",
    'busdoor_workloads.resolve("chat").generate(0,num_requests=3,request_rate="4")': "request_rate is '4'; it m",
    'busdoor_workloads.resolve("chat").generate(0,num_requests=3,request_rate=0)': "request_rate "
    "is 0; it must ",
    'busdoor.profile("x")': "there is no workload 'x'; it is one of arxiv-summarization, "
    "azure-code, azure-conv",
    "busdoor.profile(3)": "there is no workload 3; it is one of arxiv-summarization, azure-code, "
    "azure-conv, mo",
    "busdoor.profile(None)": "there is no workload None; it is one of arxiv-summarization, "
    "azure-code, azure-co",
    'busdoor.profile(["azure-conv"])': "there is no workload ['azure-conv']; did you mean "
    "'azure-conv'?",
    "busdoor_workloads.preset(3)": "there is no workload 3; it is one of agentic, anyscale_128, "
    "anyscale_1536, ",
    "busdoor_workloads.resolve(3)": "there is no workload 3; it is one of agentic, anyscale_128, "
    "anyscale_1536,",
    "busdoor_workloads.replication_seed(0,-1)": "replication is -1; it must be a whole number, 0 "
    "or more",
    "busdoor_workloads.replication_seed(0,None)": "replication is None; it must be a whole "
    "number, 0 or more",
    "busdoor_workloads.stream(0,3)": "the stream's name is 3; it must be a string",
    'busdoor_workloads.stream("x","a")': "seed is 'x'; it must be a whole number, 0 or more",
    'busdoor_workloads.PriorityClass(priority="x")': "PriorityClass: priority is 'x'; input "
    "should be a valid i",
    "busdoor_workloads.PriorityClass(1,2)": "PriorityClass needs 'priority'",
    "busdoor.read_trace(None)": "path is None; it must be the name of a file or folder",
    "busdoor.read_trace(3)": "path is 3; it must be the name of a file or folder",
    'busdoor.read_trace("nope.csv")': "nope.csv does not exist",
    'busdoor.read_trace("nope.csv","xx")': "nope.csv does not exist",
    'busdoor.read_trace("nope.csv",3)': "nope.csv does not exist",
    'busdoor.write_trace(3,folder/"x.csv")': "trace is 3; it must be a Trace",
    "busdoor.write_trace(trace,3)": "path is 3; it must be the name of a file or folder",
    'busdoor.write_trace(trace,folder/"x.foo")': "x.foo ends in neither .csv nor .jsonl; name the "
    "format: csv,",
    'busdoor.write_trace(trace,folder/"x.csv",3)': "the format 3 is unknown; it is one of azure, "
    "bailian, burst",
    "busdoor.make_step_time(3)": "3 is not a step-time model (known: calibrated, linear, "
    "operators, roofline, scaled_roofline)",
    'busdoor.make_step_time("linear")': "[step_time]: base_s is missing",
    'busdoor.make_step_time("linear",base_s="x")': "[step_time] base_s = 'x': input should be a "
    "valid number, u",
    'busdoor.make_step_time("linear",base_s=nan)': "[step_time] base_s = nan: input should be "
    "less than or equa",
    'busdoor.make_step_time("linear",base_s=-1)': "[step_time] base_s = -1: input should be "
    "greater than or equ",
    'busdoor.make_step_time("roofline",gpu=3,model=4)': "[step_time] gpu: 3 is not a GPU of the "
    "catalogue; it m",
    'busdoor.make_step_time("roofline",gpu="h100",model="llama-3.1-8b",tp=0)': "[step_time] tp = "
    "0: input shoul",
    'busdoor.make_step_time("calibrated",path=3)': "[step_time]: path = 3 must be a "
    "calibration's file or nam",
    "busdoor.make_step_time(None)": "None is not a step-time model (known: calibrated, linear, "
    "operators, roofline, scaled_roofline)",
    "busdoor.policy_config(3)": "3 is not a policy (known: dynamic, multi_bin, orca, "
    "prefill_first, static, tgi",
    'busdoor.policy_config("vllm",max_num_seqs="x")': "[policy] max_num_seqs = 'x': input should "
    "be a valid int",
    'busdoor.policy_config("vllm",max_num_seqs=nan)': "[policy] max_num_seqs = nan: input should "
    "be a finite nu",
    "busdoor.policy_config(None)": "None is not a policy (known: dynamic, multi_bin, orca, "
    "prefill_first, stati",
    'busdoor.policy_config(["vllm"])': "['vllm'] is not a policy; did you mean 'vllm'? (known: "
    "dynamic, multi_b",
    'busdoor.policy_config("vllm").build(3)': "kv is 3; it must be a KVConfig, as in "
    "KVConfig(num_blocks=1000, ",
    'busdoor.policy_config("vllm").build(None)': "kv is None; it must be a KVConfig, as in "
    "KVConfig(num_blocks=",
    'busdoor.policy_config("static").build(kv,3)': "trace is 3; it must be a Trace",
    'busdoor.policy_config("multi_bin").build(kv,None)': "multi_bin needs a trace to put its bins "
    "to the length",
    'busdoor.policy_config("vllm").build({"num_blocks":3})': "kv is {'num_blocks': 3}; it must be "
    "a KVConfig, a",
    "busdoor.simulate(None,policy(),step_time)": "trace is of type NoneType; it must be a Trace "
    "or a data fra",
    'busdoor.simulate("azure-conv",policy(),step_time)': "trace is of type str; it must be a "
    "Trace or a data ",
    'busdoor.simulate(trace,"vllm",step_time)': "policy is of type str; it must be a Policy, as "
    "policy_config",
    'busdoor.simulate(trace,busdoor.policy_config("vllm"),step_time)': "policy is of type "
    "VllmConfig; it must",
    "busdoor.simulate(trace,policy(),3)": "step_time is 3; it must be a StepTime, a "
    "calibration's name or fil",
    "busdoor.simulate(trace,policy(),None)": "step_time is None; it must be a StepTime, a "
    "calibration's name ",
    'busdoor.simulate(trace,policy(),"nope")': "[step_time]: 'nope' is not a calibration's file "
    "or name (known:",
    "busdoor.simulate(trace,policy(),step_time,lookahead=2)": "lookahead is 2; it must be 0 or 1",
    'busdoor.simulate(trace,policy(),step_time,lookahead="1")': "lookahead is '1'; it must be 0 "
    "or 1",
    "busdoor.simulate(trace,policy(),step_time,meta=3)": "meta is 3; it must be a table: a "
    "mapping of names to ",
    "busdoor.simulate(trace,policy(),step_time,progress=3)": "progress is 3; it must be a function",
    "busdoor.simulate([1,2],policy(),step_time)": "trace is of type list; it must be a Trace or "
    "a data frame:",
    "busdoor.simulate(trace,policy,step_time)": "policy is of type function; it must be a "
    "Policy, as policy_c",
    "busdoor.simulate(trace,policy(),lambda x: 1)": "step_time is <function <lambda>",
    "busdoor.compare(3)": "workload is of type int; it must be a Trace, a data frame, a name, a "
    "file or a tab",
    'busdoor.compare("nope")': "[workload] name: 'nope' is not a profile or preset (known: "
    "agentic, anyscale_12",
    'busdoor.compare("azure-conv",3)': "policies is 3; it must be names or tables, as in "
    "['static', 'vllm']",
    'busdoor.compare("azure-conv",[])': "policy = []: name at least one",
    'busdoor.compare("azure-conv",[3])': "policy = 3: it must be a table, [policy], or several, "
    "[[policy]]",
    'busdoor.compare("azure-conv",[None])': "policy = None: it must be a table, [policy], or "
    "several, [[polic",
    'busdoor.compare("azure-conv",{"name":"vllm","x":1})': "[policy] x: unknown; it may have "
    "chunked_prefill, l",
    'busdoor.compare("azure-conv",gpu=3)': "[gpu] name: 3 is not a GPU of the catalogue; it must "
    "be a name (a",
    'busdoor.compare("azure-conv",model=None)': "[gpu] model: None is not a model of the "
    "catalogue; it must b",
    'busdoor.compare("azure-conv",gpu_options=3)': "gpu_options is 3; it must be a table: a "
    "mapping of names to",
    'busdoor.compare("azure-conv",gpu_options={"x":1})': "[gpu] x: unknown; it may have "
    "gpu_memory_utilization,",
    'busdoor.compare("azure-conv",request_rate="x")': "[workload] request_rate = 'x': input "
    "should be a valid n",
    'busdoor.compare("azure-conv",request_rate=nan)': "[workload] request_rate = nan: input "
    "should be greater t",
    'busdoor.compare("azure-conv",request_rate=-1)': "[workload] request_rate = -1: input should "
    "be greater tha",
    'busdoor.compare("azure-conv",num_requests=0)': "[workload] num_requests = 0: input should be "
    "greater than ",
    'busdoor.compare("azure-conv",num_requests="x")': "[workload] num_requests = 'x': input "
    "should be a valid i",
    'busdoor.compare("azure-conv",replications=0)': "the configuration's replications = 0: input "
    "should be grea",
    'busdoor.compare("azure-conv",replications="x")': "the configuration's replications = 'x': "
    "input should be ",
    'busdoor.compare("azure-conv",seed=-1)': "the configuration's seed = -1: input should be "
    "greater than or eq",
    'busdoor.compare("azure-conv",seed="x")': "the configuration's seed = 'x': input should be a "
    "valid integer,",
    'busdoor.compare("azure-conv",seed=None)': "the configuration's seed = None: input should be "
    "a valid intege",
    'busdoor.compare("azure-conv",kv=3)': "kv = 3: it must be a table, [kv]",
    'busdoor.compare("azure-conv",slo="ttft=two")': "[slo] ttft: 'two' is no duration; write a "
    "number of second",
    'busdoor.compare("azure-conv",slo=3)': "slo is 3; it must be a limit as in 'ttft_p99=2s', a "
    "preset's name, ",
    'busdoor.compare("azure-conv",step_time=3)': "step_time = 3: it must be a table, [step_time]",
    'busdoor.compare("azure-conv",lookahead=3)': "the configuration's lookahead = 3: input should "
    "be 0 or 1",
    'busdoor.compare({"nam":"x"})': "[workload] nam: unknown; did you mean name?",
    'busdoor.compare({3:"x"})': "[workload] 3: unknown; it may have arrival, base, duration_s, "
    "input_tokens, le",
    'busdoor.compare("azure-conv",report=3,num_requests=5,replications=1)': "report is 3; it must "
    "be a function",
    'busdoor.compare(busdoor_workloads.resolve("chat"))': "workload is of type Workload; it must "
    "be a Trace, ",
    "busdoor.compare([trace])": "workload is of type list; it must be a Trace, a data frame, a "
    "name, a file o",
    'busdoor.compare("azure-conv",cluster=3)': "cluster = 3: it must be a table, [cluster]",
    'busdoor.compare("azure-conv",[busdoor.policy_config("vllm")])': "policy = "
    "VllmConfig(queue='fcfs', length_",
    'busdoor.find_capacity("azure-conv",["vllm"],3)': "slo is 3; it must be a limit as in "
    "'ttft_p99=2s', a pres",
    'busdoor.find_capacity("azure-conv",["vllm"],"x")': "[slo] preset: 'x' is not a limit as in "
    "ttft_p99=2s, no",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=0s")': "[slo] e2e_p99 = '0s': it must "
    "be over 0 sec",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",num_requests="x")': "num_requests "
    "is 'x'; it must",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",num_requests=nan)': "num_requests "
    "is nan; it must",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",tolerance="x")': "tolerance is 'x'; "
    "it must be a ",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",tolerance=nan)': "tolerance is nan; "
    "it must be a ",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",max_doublings=-1)': "max_doublings "
    "is -1; it must",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",max_doublings="x")': "max_doublings "
    "is 'x'; it mu",
    'busdoor.find_capacity("azure-conv",["vllm"],"e2e_p99=9s",jobs="x")': "jobs is 'x'; it must "
    "be a whole numb",
    'busdoor.find_capacity("azure-conv",["vllm"],["e2e_p99=9s",3])': "a limit of slo is 3; it "
    "must be a text, a",
    'busdoor.find_capacity("azure-conv",["vllm"],{"e2e_p99":nan})': "[slo] e2e_p99 = nan: it must "
    "be over 0 s",
    'busdoor.find_capacity(trace,["vllm"],"e2e_p99=9s",replications=0)': "the configuration's "
    "replications = 0:",
    "busdoor.find_capacity(3)": "workload is of type int; it must be a Trace, a data frame, a "
    "name, a file or",
    "busdoor.load_config(3)": "the configuration is 3; it must be the name of a file or folder",
    "busdoor.load_config(None)": "the configuration is None; it must be the name of a file or "
    "folder",
    'busdoor.load_config("nope.toml")': "[Errno 2] No such file or directory: 'nope.toml'",
    'busdoor.load_config("/dev/null",3)': "overrides is 3; it must be a table: a mapping of names "
    "to values",
    "busdoor.Config()": "Config: workload, policies and step_time are missing",
    "busdoor.Config.from_table(3)": "the configuration is 3; it must be a table: a mapping of "
    "names to values",
    "busdoor.Config.from_table([1])": "the configuration is [1]; it must be a table: a mapping of "
    "names to valu",
    "busdoor.Config.from_table({3:1})": "the key 3 of the configuration is 3; it must be a name",
    "busdoor.Config.from_table(None)": "the configuration is None; it must be a table: a mapping "
    "of names to va",
    "busdoor.Config(seed=1)": "Config: workload, policies and step_time are missing",
    'busdoor.Result.load("nope")': "nope holds no result: it has no meta.json",
    "busdoor.Result.load(3)": "directory is 3; it must be the name of a file or folder",
    "result.save(3)": "directory is 3; it must be the name of a file or folder",
    'result.slo(ttft="x")': "ttft is 'x'; it must be a number, more than 0",
    "result.slo(foo=3)": "slo 'foo' is no latency; it must be one of ttft, tpot, e2e, normalized",
    "result.slo(ttft=nan)": "ttft is nan; it must be a number, more than 0",
    "result.slo(ttft=-1)": "ttft is -1; it must be a number, more than 0",
    'result.plot_latency_cdf("foo")': "metric is 'foo', which is none of ttft, tpot, e2e, "
    "normalized",
    "result.to_perfetto(3)": "file is 3; it must be the name of a file or folder",
    "result.plot_kv(ax=3)": "ax is 3; it must be a matplotlib Axes",
    'comparison.plot_latency_cdf("foo")': "metric is 'foo', which is none of ttft, tpot, e2e, "
    "normalized",
    "comparison.save(3)": "directory is 3; it must be the name of a file or folder",
    'busdoor.Comparison.load("nope")': "nope holds no comparison: it has no comparison.json",
    "busdoor.Result(requests=3,iterations=4,stays=5,meta=6).summary": "requests is 3; it must be "
    "a data frame",
    "busdoor.Server(3,4,5)": "env is 3; it must be a simpy.Environment",
}


def made(**columns):
    return busdoor.Trace(
        **{"arrival_s": [0, 1], "input_tokens": [5, 6], "output_tokens": [1, 2], **columns}
    )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the snippets may name."""
    trace, kv = made(), KVConfig(num_blocks=100, max_model_len=64)
    step_time = busdoor.make_step_time("linear", base_s=0.1)

    def policy():
        return busdoor.policy_config("vllm", max_num_seqs=4, max_num_batched_tokens=64).build(
            kv, trace
        )

    few = {"rate": 3, "num_requests": 10, "replications": 1}
    return {
        "busdoor": busdoor,
        "busdoor_workloads": busdoor_workloads,
        "pd": pd,
        "nan": math.nan,
        "inf": math.inf,
        "workload_from_table": workload_from_table,
        "made": made,
        "trace": trace,
        "kv": kv,
        "policy": policy,
        "step_time": step_time,
        "folder": tmp_path_factory.mktemp("misuse"),
        "result": busdoor.simulate(trace, policy(), step_time),
        "comparison": busdoor.compare("azure-conv", ["static,batch_size=4", "vllm"], **few),
    }


@pytest.mark.parametrize("typed", MISUSES)
def test_misuse_ends_in_a_sentence(names, typed):
    compiled = is_compiled() and typed == "busdoor.Server(3,4,5)"  # it checks types itself
    with pytest.raises(TypeError if compiled else (ValueError, OSError)) as error:
        eval(typed, dict(names))
    said = str(error.value)
    assert compiled or (said.startswith(MISUSES[typed]) and "\n" not in said)


def test_numbers_of_any_kind_are_taken():
    trace = made(
        output_tokens=pd.Series([1, 2], dtype="Int64"),
        arrival_s=pd.Series([0.5, 1]),
        concurrency=2.0,
    )
    assert trace.output_tokens.tolist() == [1, 2] and trace.concurrency == 2
    assert len(busdoor_workloads.resolve("chat").generate(num_requests=1e2)) == 100
    assert made(session_id=[2**53 + 1, 5]).session_id[0] == 2**53 + 1
    assert len(busdoor.Trace(arrival_s=[], input_tokens=[], output_tokens=[])) == 0
    assert len(made().select([])) == 0 and len(made().select([True, False])) == 1
