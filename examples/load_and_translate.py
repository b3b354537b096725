"""Load a trained space, translate images into the feature space of the text stream, and find the nearest captions.

python examples/train_three_streams.py
python examples/load_and_translate.py runs/digits
"""

import sys

import torch
import torch.nn.functional as F

import sparc
from sparc.plugins import discover

space = sparc.load(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")

# Raw features of the held-out samples, from the store; the space normalises them itself.
test = sparc.extract(dataset="digits", stream=["hog", "char-ngrams"]).test
features = test.in_memory()

# Images are encoded alone, so these codes contain nothing of the captions. The result is text features.
with torch.inference_mode():
    codes = space.encode({"hog": features["hog"]})["hog"]
    translated = space.decode(codes, stream="char-ngrams")
    target = space.normalize({"char-ngrams": features["char-ngrams"]}).features["char-ngrams"]

error = ((translated - target).square().sum(dim=1) / target.square().sum(dim=1)).mean()
mean = ((target.mean(dim=0) - target).square().sum(dim=1) / target.square().sum(dim=1)).mean()
print(f"hog → char-ngrams: NMSE {error:.2f} on {len(test)} held-out images; the mean caption has {mean:.2f}")

# Each image gets the caption with the most similar features.
spec = discover().dataset("digits")
images = spec.open(spec.params(), "test")
captions = [images[index].text() for index in range(len(images))]
similarity = F.normalize(translated, dim=1) @ F.normalize(target, dim=1).T
nearest = [captions[place] for place in similarity.argmax(dim=1).tolist()]
for caption, found in list(zip(captions, nearest, strict=True))[:5]:
    print(f"  {caption:32} → {found}")

NAMES = {label for label in images.taxonomy.labels if images.taxonomy.depth(label) == 2}
digits, answers = (
    [next(word for word in text.split() if word in NAMES) for text in texts] for texts in (captions, nearest)
)
right = sum(digit == answer for digit, answer in zip(digits, answers, strict=True))
print(f"the digit is right for {right / len(digits):.0%}, by chance for 10%")
