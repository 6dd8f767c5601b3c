"""Writes renderings.json: what Python's jinja2, set up as Hugging Face's transformers does, makes of templates/*.jinja.

Usage: python3 renderings.py > renderings.json   (needs: pip install jinja2==3.1.6)
"""

import json, glob, os, sys, datetime
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.ext import Extension, loopcontrols
import jinja2


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return body


class Raised(Exception):
    pass


NOW = datetime.datetime(2026, 3, 7, 9, 5, 4)


def env():
    e = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(m):
        raise Raised(m)

    e.filters["tojson"] = tojson
    e.filters["from_json"] = json.loads
    e.globals["raise_exception"] = raise_exception
    e.globals["strftime_now"] = lambda f: NOW.strftime(f)
    return e


S = {"role": "system", "content": "  You are a pirate. \n"}


def u(t):
    return {"role": "user", "content": t}


def a(t, **k):
    return {"role": "assistant", "content": t, **k}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'Gets the weather "now" <b>&</b> later',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Größe, 城市"},
                    "days": {"type": "integer", "enum": [1, 2, 3]},
                    "unit": {"type": "string", "default": None},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x", "y"],
            },
        },
    },
]


def call(n, args, i):
    return {"id": i, "type": "function", "function": {"name": n, "arguments": args}}


CASES = {
    "one": dict(messages=[u("Hello")], add_generation_prompt=True),
    "no prompt": dict(messages=[u("Hello"), a("Hi")], add_generation_prompt=False),
    "system": dict(messages=[S, u(" What is 2+2? ")], add_generation_prompt=True),
    "turns": dict(
        messages=[
            S,
            u("Hi\n\nthere"),
            a("Ahoy!\n"),
            u("你好 😀 'quotes' \"double\" \\ back"),
            a("<b>ok</b> & fine"),
            u("x"),
        ],
        add_generation_prompt=True,
    ),
    "think": dict(messages=[u("q"), a("<think>\nhmm\n</think>\n\nanswer"), u("q2")], add_generation_prompt=True),
    "no think": dict(messages=[u("q"), a("r"), u("q2")], add_generation_prompt=True, extra={"enable_thinking": False}),
    "thinking": dict(
        messages=[u("q")], add_generation_prompt=True, extra={"enable_thinking": True, "reasoning_effort": "low"}
    ),
    "bad roles": dict(messages=[u("a"), u("b")], add_generation_prompt=True),
    "tools": dict(messages=[S, u("weather?")], tools=TOOLS, add_generation_prompt=True),
    "tool call": dict(
        messages=[
            u("weather?"),
            a("", tool_calls=[call("get_weather", {"city": "Köln", "days": 2}, "abcdefghi")]),
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"t": 21.5}'},
            a("It is 21.5."),
            u("thanks"),
        ],
        tools=TOOLS,
        add_generation_prompt=True,
    ),
    "two calls": dict(
        messages=[
            u("both"),
            a(
                "Let me see.",
                tool_calls=[
                    call("get_weather", {"city": "Oslo"}, "abcdefghi"),
                    call("add", {"x": 1, "y": 2.5}, "ihgfedcba"),
                ],
            ),
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "cold"},
            {"role": "tool", "tool_call_id": "ihgfedcba", "name": "add", "content": "3.5"},
        ],
        tools=TOOLS,
        add_generation_prompt=True,
    ),
}


def run(files, cases):
    out = []
    for p in files:
        src = open(p, newline="").read()
        rec = {"name": os.path.basename(p)[:-6], "cases": []}
        t = env().from_string(src)
        for n, c in cases.items():
            kw = dict(
                messages=c["messages"],
                tools=c.get("tools"),
                add_generation_prompt=c["add_generation_prompt"],
                bos_token="<s>",
                eos_token="</s>",
                **c.get("extra", {})
            )
            r = {"case": n}
            try:
                r["text"] = t.render(**json.loads(json.dumps(kw)))
            except Raised as e:
                r["raised"] = str(e)
            except Exception as e:
                r["error"] = type(e).__name__ + ": " + str(e)
            rec["cases"].append(r)
        out.append(rec)
    return out


if __name__ == "__main__":
    files = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates/*.jinja")))
    json.dump({"cases": CASES, "templates": run(files, CASES)}, sys.stdout, ensure_ascii=False, indent=1)
