"""The part of GitHub's expressions that our workflows use; anything else is an error."""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(r"\s*('(?:[^']|'')*'|&&|\|\||==|!=|[!(),]|[A-Za-z_][\w.-]*)")
_WHOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


class UnknownExpression(AssertionError):
    pass


def interpolate(text, contexts):
    """``text`` with each ``${{ ... }}`` replaced; one that stands alone keeps its type."""
    if not isinstance(text, str):
        return text
    alone = _WHOLE.fullmatch(text.strip())
    if alone and text.count("${{") == 1:
        return evaluate(alone[1], contexts)
    return _WHOLE.sub(lambda m: shown(evaluate(m[1], contexts)), text)


def condition(text, contexts):
    """Whether a job or step with this ``if`` runs; without a status function only after success."""
    text = "success()" if text is None else str(text)
    alone = _WHOLE.fullmatch(text.strip())
    text = alone[1] if alone else text
    if not re.search(r"\b(always|cancelled|failure|success)\(\)", text):
        text = f"success() && ({text})"
    return bool(evaluate(text, contexts))


def shown(value):
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def evaluate(text, contexts):
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise UnknownExpression(f"{text[at:]!r} in {text!r}")
        tokens.append(match[1])
        at = match.end()
    parser = _Parser(tokens, contexts)
    value = parser.either()
    if parser.tokens:
        raise UnknownExpression(f"{parser.tokens!r} left of {text!r}")
    return value


class _Parser:
    def __init__(self, tokens, contexts):
        self.tokens, self.contexts = tokens, contexts

    def take(self, *wanted):
        if self.tokens and self.tokens[0] in wanted:
            return self.tokens.pop(0)
        return None

    def either(self):
        value = self.both()
        while self.take("||"):
            other = self.both()
            value = value or other
        return value

    def both(self):
        value = self.compared()
        while self.take("&&"):
            other = self.compared()
            value = value and other
        return value

    def compared(self):
        value = self.single()
        sign = self.take("==", "!=")
        if sign:
            same = shown(value).lower() == shown(self.single()).lower()
            return same if sign == "==" else not same
        return value

    def single(self):
        if self.take("!"):
            return not self.single()
        if self.take("("):
            value = self.either()
            assert self.take(")")
            return value
        if not self.tokens:
            raise UnknownExpression("nothing where a value was wanted")
        token = self.tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if self.take("("):
            return self.call(token)
        return self.look_up(token)

    def call(self, name):
        arguments = []
        while not self.take(")"):
            arguments.append(self.either())
            self.take(",")
        status = self.contexts["status"]
        known = {
            "always": lambda: True,
            "success": lambda: status == "success",
            "failure": lambda: status == "failure",
            "cancelled": lambda: status == "cancelled",
            "fromJSON": json.loads,
        }
        if name not in known:
            raise UnknownExpression(f"the function {name}")
        return known[name](*arguments)

    def look_up(self, path):
        first, *rest = path.split(".")
        if first not in self.contexts:
            raise UnknownExpression(f"the context {first} in {path}")
        value = self.contexts[first]
        for name in rest:
            value = value.get(name) if isinstance(value, dict) else None
        return value
