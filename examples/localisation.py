"""Point at words in an image: where in a mosaic of sixteen handwritten digits is "a seven"?

python examples/train_three_streams.py
python examples/localisation.py runs/digits

In training the space saw one digit at a time, and whole images only.
"""

import random
import sys
from pathlib import Path

from PIL import Image

import sparc
from sparc.localization import checked_request, draw, localize
from sparc.localization.picture import save
from sparc.plugins import discover

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOSAICS = 10

# The space with the backbones of two of its streams: tiny-image has a grid of 4 x 4 patches, char-ngrams reads words.
models = sparc.load_models(sys.argv[1] if len(sys.argv) > 1 else "runs/digits", streams=["tiny-image", "char-ngrams"])

spec = discover().dataset("digits")
held_out = spec.open(spec.params(), "test")
samples = [held_out[index] for index in range(len(held_out))]
drawn = random.Random(0)


def mosaic():
    """Return an image of sixteen held-out digits in four rows, all ten among them, and their names, row by row."""
    names = [*NAMES, *drawn.choices(NAMES, k=6)]
    drawn.shuffle(names)
    image = Image.new("L", (32, 32))
    for place, name in enumerate(names):
        digit = drawn.choice([sample for sample in samples if name in sample.text().split()])
        image.paste(digit.image().convert("L"), (place % 4 * 8, place // 4 * 8))
    return image, names


right = asked = 0
share = 0.0
for number in range(MOSAICS):
    image, names = mosaic()
    request = checked_request([image], text=[f"a {name}" for name in NAMES], n_latents=models.space.n_latents)
    for found in localize(models, request):
        wanted = str(found.query).split()[-1]
        asked += 1
        if found.peak is not None:  # an empty map has no peak
            x, y = found.peak
            right += names[int(y // 8) * 4 + int(x // 8)] == wanted
        share += names.count(wanted) / len(names)
        if number == 0 and wanted == "seven":
            save(draw([found]), Path("seven.png"))

print(f"the strongest patch shows the right digit in {right} of {asked} maps, by chance in {share:.0f}")
print("one of the maps: seven.png")
