"""Floating-point formats bit by bit: what a code is worth, what lies beside it, and where a decimal number goes."""

import math
from decimal import Decimal

import torch
import traitlets as t

from minimodels.explorables.base import Explorable, table
from minimodels.fp8 import E4M3, E5M2, FloatFormat

# the first two: Micikevicius et al. (2022), Table 1; FP16 and FP32: IEEE 754; BF16: the upper half of FP32
FORMATS = {
    "E4M3": E4M3,
    "E5M2": E5M2,
    "BF16": FloatFormat(torch.bfloat16, exponent_bits=8, mantissa_bits=7, has_infinity=True),
    "FP16": FloatFormat(torch.float16, exponent_bits=5, mantissa_bits=10, has_infinity=True),
    "FP32": FloatFormat(torch.float32, exponent_bits=8, mantissa_bits=23, has_infinity=True),
}
FACTS = {name: {key: getattr(fmt, key) for key in ("exponent_bits", "mantissa_bits", "has_infinity")} for name, fmt in FORMATS.items()}
EXACT, ROUNDED = 12, 9  # digits: a number with more than 12 is written with 9
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# ---- codes and numbers

def fields(code: int, fmt: FloatFormat) -> tuple[int, int, int]:
    """The code's sign, exponent and mantissa, as written: the exponent with its bias. Raises ValueError for a code of more bits."""
    if not 0 <= code < 2**fmt.bits:
        raise ValueError(f"code must be in [0, 2^{fmt.bits}), got {code}")
    rest, mantissa = divmod(code, 2**fmt.mantissa_bits)
    return *divmod(rest, 2**fmt.exponent_bits), mantissa


def value_of(code: int, fmt: FloatFormat) -> float:
    """(-1)^sign 2^(exponent - bias) (1 + mantissa / 2^m); (-1)^sign 2^(1 - bias) mantissa / 2^m where the exponent is 0.

    With infinities, the top exponent is infinity (mantissa 0) or NaN. Without (E4M3) it counts on, and one code a sign is NaN.
    """
    sign, exponent, mantissa = fields(code, fmt)
    if code % 2 ** (fmt.bits - 1) > largest(fmt):
        return math.copysign(math.inf, -sign or 1) if fmt.has_infinity and mantissa == 0 else math.nan
    step = 2.0 ** (max(exponent, 1) - fmt.bias - fmt.mantissa_bits)
    return (-1.0) ** sign * (mantissa + (2**fmt.mantissa_bits if exponent else 0)) * step


def code_of(number: float, fmt: FloatFormat) -> int:
    """The code of the nearest number, of two equally near the even code; beyond the largest it is the largest.

    Raises ValueError for a number that is not finite.
    """
    if not math.isfinite(number):
        raise ValueError(f"number must be finite, got {number}")
    sign = 2 ** (fmt.bits - 1) if math.copysign(1, number) < 0 else 0
    exponent = max(math.frexp(number)[1] - 1, 1 - fmt.bias) if number else 1 - fmt.bias
    steps = round(math.ldexp(abs(number), fmt.mantissa_bits - exponent))  # Python rounds half to even
    return sign + min((exponent + fmt.bias - 1) * 2**fmt.mantissa_bits + steps, largest(fmt))


def largest(fmt: FloatFormat) -> int:
    """The code of the largest finite number; the codes below it are the other positive ones, in order."""
    return (2**fmt.exponent_bits - 1) * 2**fmt.mantissa_bits - 1 if fmt.has_infinity else 2 ** (fmt.bits - 1) - 2


def beside(code: int, fmt: FloatFormat, direction: int) -> int | None:
    """The code of the next larger (direction 1) or smaller (-1) number; infinity is one, -0 is not. None beyond the last, and of NaN."""
    sign, size = divmod(code, 2 ** (fmt.bits - 1))
    last = largest(fmt) + fmt.has_infinity
    rank = (-size if sign else size) + direction
    if size > last or abs(rank) > last:
        return None
    return 2 ** (fmt.bits - 1) - rank if rank < 0 else rank


def kind(code: int, fmt: FloatFormat) -> str:
    """normal, subnormal, zero, infinity or NaN."""
    value = value_of(code, fmt)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    return "zero" if value == 0 else "normal" if fields(code, fmt)[1] else "subnormal"


def digits_of(code: int, fmt: FloatFormat) -> float:
    """Decimal digits of precision, (significant bits) log10 2: m + 1 bits, fewer where the number is subnormal; 0 for what is no number."""
    n_bits = {"normal": fmt.mantissa_bits + 1, "subnormal": fields(code, fmt)[2].bit_length()}.get(kind(code, fmt), 0)
    return n_bits * math.log10(2)


def relative_error(number: float, fmt: FloatFormat) -> float:
    """How far number moves when it is rounded, as a share of it; 0 for 0."""
    return abs(value_of(code_of(number, fmt), fmt) - number) / abs(number) if number else 0.0


# ---- in words

def bits(code: int, fmt: FloatFormat) -> str:
    """Sign, exponent and mantissa: 0 0111 000."""
    sign, exponent, mantissa = fields(code, fmt)
    return f"{sign} {exponent:0{fmt.exponent_bits}b} {mantissa:0{fmt.mantissa_bits}b}"


def written(x: float, digits: int | None = None) -> str:
    """x in full where that takes at most 12 digits, otherwise with 9, or with as many as asked for, halves up."""
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return _sign(x) + _placed(*_parts(f"{abs(x):.99e}"), digits)


def typed(x: float) -> str:
    """x with the fewest digits that tell it from other float64 numbers, as a reader types it."""
    figures, exponent = _parts(f"{Decimal(repr(abs(x))):e}")
    return _sign(x) + _placed(figures, exponent, len(figures))


def percent(share: float) -> str:
    return f"{written(100 * share, 3)} %"


def _sign(x):
    return "−" if math.copysign(1, x) < 0 else ""


def _parts(scientific):
    mantissa, exponent = scientific.split("e")
    figures = mantissa.replace(".", "").rstrip("0")
    return figures, int(exponent) if figures else 0


def _placed(figures, exponent, digits):
    keep = digits or (len(figures) if len(figures) <= EXACT else ROUNDED)
    if len(figures) > keep:
        n = int(figures[:keep]) + (figures[keep] >= "5")
        exponent += n == 10**keep
        figures = str(n).rstrip("0")
    figures = figures or "0"
    if not -5 <= exponent < EXACT:
        return f"{figures[0]}{'.' * (len(figures) > 1)}{figures[1:]} × 10{str(exponent).translate(SUPERSCRIPT)}"
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + figures
    whole, rest = figures[:exponent + 1].ljust(exponent + 1, "0"), figures[exponent + 1:]
    return f"{int(whole):,}{'.' * bool(rest)}{rest}"


class FloatBits(Explorable):
    """A number as its bits: toggle them, walk along the format's numbers, or type a decimal number and see it rounded.

    Rounding is to nearest, ties to even, and saturates: `minimodels.fp8.quantise` clamps before it casts. What the JavaScript
    computes stands in the functions of this module too, and both agree with torch's casts.
    Source: Micikevicius et al. (2022), arXiv:2209.05433, section 3, for the 8-bit formats; IEEE 754 for the others.
    """

    name = "float_bits"

    format = t.Enum(list(FORMATS), "E4M3").tag(sync=True)
    code = t.Int(0, min=0).tag(sync=True)                    # the bits, read as a whole number
    number = t.Float(0.1).tag(sync=True)                     # what the reader types
    zoom = t.Int(3, min=2, max=10).tag(sync=True)            # the enlarged line shows 2^zoom gaps on either side
    formats = t.Dict(FACTS).tag(sync=True)

    def __init__(self, **values):
        """Without a code, the bits are those that number is rounded to. Raises TraitError for a code that the format does not have."""
        if "code" not in values:
            values["code"] = code_of(values.get("number", 0.1), FORMATS[values.get("format", "E4M3")])
        super().__init__(**values)

    @property
    def fmt(self) -> FloatFormat:
        return FORMATS[self.format]

    @t.validate("number")
    def _finite(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise t.TraitError(f"number must be finite, got {proposal['value']}")
        return proposal["value"]

    @t.validate("code")
    def _fitting(self, proposal):
        if proposal["value"] >= 2**self.fmt.bits:
            raise t.TraitError(f"code must be below 2^{self.fmt.bits}, as {self.format} has {self.fmt.bits} bits, got {proposal['value']}")
        return proposal["value"]

    @t.observe("format")
    def _refit(self, change):
        """A code of more bits than the new format has goes to that of the typed number."""
        if self.code >= 2**self.fmt.bits:
            self.code = code_of(self.number, self.fmt)

    def value(self) -> float:
        """The number that the bits stand for; may be NaN or infinite."""
        return value_of(self.code, self.fmt)

    def summary(self) -> str:
        rounded = value_of(code_of(self.number, self.fmt), self.fmt)
        return (f"{self.format} {bits(self.code, self.fmt)} is {written(self.value())}; {typed(self.number)} is rounded to {written(rounded)}, "
                f"{percent(relative_error(self.number, self.fmt))} away")

    def fallback(self) -> str:
        code, fmt = self.code, self.fmt
        sides = {-1: "Next below", 1: "Next above"}
        rows = [["Value", written(self.value())], ["Kind", kind(code, fmt)], ["Made of", self._made()]]
        for direction, words in sides.items():
            there = beside(code, fmt, direction)
            value = math.nan if there is None else value_of(there, fmt)
            gap = f", a gap of {written(abs(value - self.value()))}" if math.isfinite(value) and math.isfinite(self.value()) else ""
            rows.append([words, "none" if there is None else written(value) + gap])
        rows.append(["Decimal digits of precision", written(digits_of(code, fmt), 2)])
        rounded = [[name, written((one.mantissa_bits + 1) * math.log10(2), 2), written(value_of(code_of(self.number, one), one)),
                    percent(relative_error(self.number, one))] for name, one in FORMATS.items()]
        return (table(f"{self.format}, bits {bits(code, fmt)}: sign, exponent, mantissa", ["Property", "This code"], rows) + "\n"
                + table(f"{typed(self.number)} in each format", ["Format", "Digits", "Rounded to", "Relative error"], rounded))

    def _made(self):
        sign, exponent, mantissa = fields(self.code, self.fmt)
        what = kind(self.code, self.fmt)
        if what in ("infinity", "NaN"):
            return f"exponent {exponent}, mantissa {mantissa}: kept for {what}"
        lead = "1" if exponent else "0"
        power = f"2^({max(exponent, 1)} − {self.fmt.bias})"
        return f"{'−' if sign else '+'}1 × {power} × ({lead} + {mantissa}/{2**self.fmt.mantissa_bits:,})"
