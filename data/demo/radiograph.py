"""Draws one synthetic chest radiograph with numpy and Pillow: test data for a trainer, without medical meaning.

For each organ, a map of its density is added; the sum is then exposed like a film, on which dense tissue is bright.
Anatomy is drawn at a quarter of the resolution and enlarged, because none of its edges is sharper; only the detector's
noise is drawn at full resolution. Only the opacities depend on the class. Size, pose, build and exposure have the same
distribution for both classes, so that the mean or the histogram of an image says little about its class.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

Map: TypeAlias = NDArray[np.floating[Any]]
"""float32 everywhere: half the memory traffic of float64, and precise enough for 256 gray levels."""

COARSE = 4
"""Pixels of the finished picture per pixel of the anatomy, in each direction."""


@dataclass(frozen=True)
class Body:
    """The anatomy of one patient.

    Lengths are in half picture heights: x to the right of the picture (the patient's left), y down, 0 in the middle.
    """

    x: Map
    """Coordinate of each coarse pixel, (h, w); turned and shifted with the patient."""
    y: Map
    cage: Map
    """Half the width of the rib cage at the height of each pixel, (h, w)."""
    lungs: Map
    """The fraction of the beam's path that is lung, 0 to 1, (h, w)."""
    heart: Map
    """The same fraction for the heart."""
    domes: Map
    """The distance of a pixel below the diaphragm; negative above it, (h, w)."""


def draw_radiograph(rng: np.random.Generator, *, pneumonia: bool) -> NDArray[np.uint8]:
    """Draw one radiograph, seen from the front.

    Args:
        rng: the only source of randomness; the same state gives the same picture.
        pneumonia: add one to four patchy opacities to the lungs.

    Returns:
        Gray levels, (height, width) uint8. The longer side has 1,080 to 1,500 pixels; width / height is
        0.8 to 1.45.
    """
    height, width = _size(rng)
    body = _body(rng, height, width)
    elbow = rng.uniform(1.05, 1.5)
    dense = _soft_tissue(rng, body, elbow) + _bones(rng, body, elbow) + _vessels(rng, body)
    if pneumonia:
        dense += _opacities(rng, body)
    return _expose(rng, dense, height, width)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in pixels."""
    ratio = rng.uniform(0.8, 1.45)
    longer = int(rng.integers(1080, 1501))
    return (longer, round(longer * ratio)) if ratio < 1 else (round(longer / ratio), longer)


def _body(rng: np.random.Generator, height: int, width: int) -> Body:
    h, w = -(-height // COARSE), -(-width // COARSE)
    # A narrow picture shows the patient smaller, as if the X-ray tube were farther away.
    reach = rng.uniform(0.92, 1.08) * min(1.12, 0.2 + 0.85 * width / height)
    turn = np.deg2rad(rng.normal(0, 2.0)) if rng.random() < 0.7 else 0.0
    rows = (np.arange(h, dtype=np.float32)[:, None] + 0.5) * 2 / h - 1
    columns = ((np.arange(w, dtype=np.float32) + 0.5) * 2 / w - 1) * (w / h)
    shift_x, shift_y = rng.normal(0, 0.035, 2)
    x = ((columns * np.cos(turn) + rows * np.sin(turn) - shift_x) / reach).astype(np.float32)
    y = ((rows * np.cos(turn) - columns * np.sin(turn) - shift_y) / reach).astype(np.float32)

    widest, top, breadth = rng.uniform(0.35, 0.5), rng.uniform(-0.86, -0.76), rng.uniform(0.68, 0.82)
    rise = np.clip((widest - y) / (widest - top), -1, 1)
    cage = (breadth * (1 - np.abs(rise) ** 2.6).clip(1e-3) ** (1 / 2.6)).astype(np.float32)
    cage = np.where(y > widest, breadth - 0.1 * (y - widest) ** 2, cage).astype(np.float32)
    heart = _heart(rng, x, y)
    domes = _domes(rng, x, y)
    mediastinum = _mediastinum(rng, x, y)
    rounding = 0.16
    outer, inner = (rounding - 0.94 * cage + np.abs(x)).clip(0), (rounding + mediastinum).clip(0)
    lungs = _step(rounding - np.sqrt(outer * outer + inner * inner), 0.022) * _step(-domes, 0.018)
    lungs *= 1 - 0.6 * np.sqrt(heart)
    return Body(x=x, y=y, cage=cage, lungs=lungs, heart=heart, domes=domes)


def _heart(rng: np.random.Generator, x: Map, y: Map) -> Map:
    size, lift = rng.uniform(0.88, 1.12), rng.normal(0, 0.03)
    left = _oval(x - 0.14, y - 0.25 - lift, 0.35 * size, 0.25 * size, turn=0.6)
    right = _oval(x + 0.06, y - 0.25 - lift, 0.18 * size, 0.26 * size)
    deep: Map = np.maximum(left, right).clip(0)
    return (deep * (2 - deep)) ** 0.5 * _step(deep, 0.05)


def _mediastinum(rng: np.random.Generator, x: Map, y: Map) -> Map:
    """The distance of a pixel inside the mediastinum, between the lungs; the aortic knob bulges to the left."""
    half = rng.uniform(0.11, 0.15) + 0.035 * _step(-0.5 - y, 0.2)
    knob = rng.uniform(0.03, 0.075) * np.exp(-(((y + 0.28) / 0.09) ** 2)) + 0.05 * np.exp(-(((y + 0.03) / 0.16) ** 2))
    vein = 0.03 * _step(-0.1 - y, 0.2)
    edge: Map = half + vein + (knob - vein) * _step(x, 0.05)
    return edge - np.abs(x)


def _domes(rng: np.random.Generator, x: Map, y: Map) -> Map:
    """Two arches; the one above the liver is higher."""
    level, lower = rng.uniform(0.40, 0.56), rng.uniform(0.03, 0.08)
    bend = np.abs(x) - 0.36
    return y - level - lower * _step(x, 0.12) - (0.3 + 0.85 * _step(bend, 0.02)) * bend * bend


def _soft_tissue(rng: np.random.Generator, body: Body, elbow: float) -> Map:
    """Trunk and arms without the air in the lungs, the heart, and the tissue under the diaphragm."""
    x, y, side = body.x, body.y, np.abs(body.x)
    shoulders = 0.26 + 0.67 * _step(y + 0.72 + 0.25 * rng.random(), 0.36)
    outline = (shoulders - 0.05 * np.sin(2.2 * y) * (y > 0)) * rng.uniform(0.98, 1.06)
    trunk = _step(outline - side, 0.02) * (0.3 + 0.3 * np.sqrt((1 - (x / outline) ** 2).clip(0)))
    arm = 0.18 - _to_segment(side, y, (0.88, -0.46), (elbow, 0.75))
    dense: Map = np.maximum(trunk, _step(arm, 0.02) * (0.24 + 0.6 * arm.clip(0)))
    depth = (1 - (x / body.cage) ** 2).clip(0) ** 0.5
    dense -= body.lungs * rng.uniform(0.27, 0.40) * (0.82 + 0.18 * depth)
    dense += 0.05 * _step(0.15 - side, 0.06) + rng.uniform(0.09, 0.14) * body.heart
    dense += 0.13 * _step(body.domes, 0.02) * depth
    stomach = _oval(x - 0.36, body.domes - 0.12, 0.16, 0.07, turn=0.2)
    dense -= rng.uniform(0, 0.12) * _step(stomach, 0.12)  # the gastric bubble
    windpipe = 0.045 - side - 0.01 * _step(y + 0.3, 0.05)
    dense -= 0.1 * _step(windpipe, 0.012) * _step(-0.14 - y, 0.04)
    breast = _oval(side - 0.46, y - 0.3, 0.3, 0.3)
    dense += max(0.0, rng.uniform(-0.09, 0.09)) * _step(breast, 0.12)
    return dense + 0.012 * _clouds(rng, dense.shape, 9, 3) * (dense > 0.1)


def _bones(rng: np.random.Generator, body: Body, elbow: float) -> Map:
    """Ribs behind and in front of the lungs (ellipses seen from the edge), spine, clavicles, scapulae, upper arms."""
    x, y, side = body.x, body.y, np.abs(body.x)
    arch = np.sqrt(1 - np.clip(side / body.cage, 0, 0.99) ** 2)
    wobble = rng.normal(0, 0.02) * _step(x, 0.1) + 0.006 * _clouds(rng, x.shape, 3, 2)
    gap, fall = rng.uniform(0.135, 0.155), rng.uniform(0.24, 0.34)
    behind = _bands((y + 0.70 + wobble - fall * (1 - arch)) / gap, 0.029) * _step(side - 0.1, 0.05)
    before = _bands((y + 0.62 + wobble - fall - 0.9 * fall * arch) / (1.12 * gap), 0.034) * _step(0.8 - arch, 0.12)
    inside = _step(0.975 * body.cage - side, 0.02) * (0.4 + 0.6 * _step(-body.domes, 0.05))
    bones: Map = inside * (rng.uniform(0.07, 0.1) * behind + rng.uniform(0.04, 0.07) * before)

    vertebra = np.cos(2 * np.pi * y / 0.135 + rng.uniform(0, 6))
    bones += rng.uniform(0.08, 0.13) * _step(0.085 + 0.006 * vertebra - side, 0.015) * (1 + 0.22 * vertebra)
    clavicle = y - rng.uniform(-0.56, -0.48) + 0.16 * (side - 0.1) - 0.035 * np.sin(2 * np.pi * (side - 0.1) / 0.75)
    bones += 0.13 * _bone(clavicle, 0.034) * _step(side - 0.09, 0.02) * _step(0.78 - side, 0.05)
    scapula = _oval(side - 0.82, y + 0.16, 0.2, 0.38, turn=-0.3) + 0.9 * (side - 0.82) - 0.5 * (y + 0.16)
    bones += 0.05 * _step(scapula, 0.1) + 0.035 * np.exp(-((scapula / 0.07) ** 2)) * _step(0.86 - side, 0.15)
    shaft = _bone(_to_segment(side, y, (0.93, -0.45), (elbow + 0.02, 0.75)), 0.048)
    ball = 0.9 * _step(_oval(side - 0.91, y + 0.5, 0.1, 0.11), 0.2)
    bones += 0.15 * np.maximum(shaft, ball)
    return bones


def _vessels(rng: np.random.Generator, body: Body) -> Map:
    """Trees that branch from the root of each lung and become thinner and fainter outwards."""
    h, w = body.x.shape
    sheet = Image.new("L", (w, h))
    pen = ImageDraw.Draw(sheet)
    thickest, stride = 0.013 * h, 0.021 * h
    for sign in (-1, 1):
        row, column = np.unravel_index(np.argmin((body.x - sign * 0.2) ** 2 + (body.y - 0.02) ** 2), (h, w))
        angles = np.linspace(-1.4, 1.4, 9) + rng.normal(0, 0.1, 9)
        shoots = [(float(column), float(row), float(angle), thickest) for angle in angles]
        while shoots:
            x, y, angle, thick = shoots.pop()
            path = [(x, y)]
            for bend in rng.normal(0, 0.13, 4).tolist():
                angle += bend
                x, y = x + sign * math.cos(angle) * stride, y + math.sin(angle) * stride
                path.append((x, y))
            pen.line(path, fill=int(60 + 150 * thick / thickest), width=max(1, round(thick)), joint="curve")
            if thick > 0.3 * thickest:
                forks = rng.uniform(0.1, 0.5), rng.uniform(-0.5, -0.1)
                shoots += [(x, y, angle + turn, thick * 0.57) for turn in forks]
    trees = np.asarray(sheet.filter(ImageFilter.GaussianBlur(0.003 * h)), np.float32) / 255
    side = np.abs(body.x)
    root = np.exp(-(((side - 0.19) / 0.1) ** 2) - (body.y / 0.17) ** 2)
    return body.lungs * (rng.uniform(0.12, 0.18) * trees + rng.uniform(0.05, 0.09) * root)


def _opacities(rng: np.random.Generator, body: Body) -> Map:
    """One to four cloudy patches, in one lung or in both."""
    inside = body.lungs > 0.6
    if rng.random() < 0.5:
        inside &= body.x * rng.choice([-1, 1]) > 0
    spots = np.flatnonzero(inside)
    ragged = 0.32 * _clouds(rng, body.x.shape, 7, 4)
    mottled = 1 + 0.3 * _clouds(rng, body.x.shape, 20, 3)
    patches: Map = np.zeros_like(body.x)
    for spot in rng.choice(spots, rng.integers(1, 5)):
        x, y = body.x - body.x.flat[spot], body.y - body.y.flat[spot]
        edge = _oval(x, y, rng.uniform(0.24, 0.42), rng.uniform(0.24, 0.42), turn=rng.uniform(-1, 1)) + ragged
        np.maximum(patches, rng.uniform(0.24, 0.36) * mottled * _step(edge, 0.28), out=patches)
    patches *= (1.5 * body.lungs).clip(0, 1)
    return patches


def _expose(rng: np.random.Generator, dense: Map, height: int, width: int) -> NDArray[np.uint8]:
    """Turn densities into the gray levels of a film: exposure, vignette, noise, and the technician's letter."""
    h, w = dense.shape
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)
    middle, contrast = rng.normal(0.47, 0.06), rng.uniform(4.0, 6.5)
    light = 1 / (1 + np.exp(-contrast * (dense - middle)))
    light = (light - 0.07).clip(0) * rng.uniform(0.85, 1.05)
    light *= 1 - rng.uniform(0.05, 0.3) * ((x * x + y * y) / 2) ** 1.5
    film = Image.fromarray((255 * light + rng.random(light.shape, np.float32)).clip(0, 255).astype(np.uint8))
    # Looking up random bytes in a table of 256 normal numbers takes a tenth of the time of drawing normal numbers.
    table = 128 + rng.uniform(1.5, 4.0) * rng.standard_normal(256)
    noise = Image.frombytes("L", (width, height), rng.bytes(width * height)).point(table.round().tolist())
    picture = ImageChops.add(film.resize((width, height), Image.Resampling.BICUBIC), noise, offset=-128)
    if rng.random() < 0.6:
        size = height * rng.uniform(0.04, 0.07)
        letter, place = ("R", 0.04) if rng.random() < 0.7 else ("L", 0.9)
        ink = int(rng.integers(190, 256))
        at = (width * place, height * rng.uniform(0.03, 0.2))
        ImageDraw.Draw(picture).text(at, letter, fill=ink, font=ImageFont.load_default(size))
    return np.asarray(picture)


def _step(distance: Map, soft: float) -> Map:
    """0 outside and 1 inside, with a smooth edge of about `soft` on each side of distance 0."""
    t: Map = distance * (0.5 / soft)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)


def _oval(x: Map, y: Map, wide: float, tall: float, turn: float = 0.0) -> Map:
    """1 in the middle of an ellipse, 0 on its edge, negative outside; `turn` in radians."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, along = (c * x + s * y) * np.float32(1 / wide), (c * y - s * x) * np.float32(1 / tall)
    return 1 - np.sqrt(across * across + along * along)


def _to_segment(x: Map, y: Map, start: tuple[float, float], end: tuple[float, float]) -> Map:
    """Distance to a line between two points."""
    along = np.subtract(end, start).astype(np.float32)
    t = (((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along)).clip(0, 1)
    across: Map = x - start[0] - t * along[0]
    down: Map = y - start[1] - t * along[1]
    return (across * across + down * down) ** 0.5


def _bone(distance: Map, half: float) -> Map:
    """A tube seen from the side: fainter in its middle than along its two walls."""
    d = np.abs(distance) / np.float32(half)
    return 0.7 * _step(1 - d, 0.25) + 0.3 * np.exp(-(((d - 0.8) / 0.22) ** 2))


def _bands(phase: Map, half: float) -> Map:
    """Bones along the lines where `phase` is 0, 1, ..., 10. Their thickness does not depend on the lines' direction."""
    down, across = np.gradient(phase)
    pixel = 2 / phase.shape[0]
    number = np.round(phase)
    distance = (phase - number) * pixel / np.sqrt(down * down + across * across).clip(1e-3)
    return _bone(distance, half) * ((number >= 0) & (number <= 10))


def _clouds(rng: np.random.Generator, shape: tuple[int, ...], cells: int, octaves: int) -> Map:
    """Fractal noise with a mean of about 0 and a standard deviation of about 1; the picture is `cells` of its largest
    lumps wide."""
    finest = cells << (octaves - 1)
    total = np.zeros((finest, finest), np.float32)
    for octave in range(octaves):
        grid = rng.standard_normal((cells << octave, cells << octave), dtype=np.float32)
        total += 1.2 * 0.55**octave * _enlarge(grid, total.shape)
    return _enlarge(total, shape)


def _enlarge(grid: Map, shape: tuple[int, ...]) -> Map:
    return np.asarray(Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
