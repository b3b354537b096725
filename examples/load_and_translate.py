"""Load a trained space, and say pictures in the features of a text stream: which caption lies nearest?

python examples/train_three_streams.py
python examples/load_and_translate.py runs/digits
"""

import sys

import torch

import sparc
from sparc.plugins import discover

space = sparc.load(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")

# Held-out features, as the backbones gave them; the space brings its own normalisation.
test = sparc.features(dataset="digits", stream=["hog", "char-ngrams"]).test
features = test.in_memory()

# Pictures alone go in: nothing of their captions can be in these codes. Text features come out.
with torch.inference_mode():
    codes = space.encode({"hog": features["hog"]})["hog"]
    said = space.decode(codes, stream="char-ngrams")
    target = space.normalize({"char-ngrams": features["char-ngrams"]}).features["char-ngrams"]

error = ((said - target).square().sum(dim=1) / target.square().sum(dim=1)).mean()
mean = ((target.mean(dim=0) - target).square().sum(dim=1) / target.square().sum(dim=1)).mean()
print(f"hog → char-ngrams: NMSE {error:.2f} on {len(test)} held-out pictures; the mean caption has {mean:.2f}")

# Each picture gets the caption whose features are most like what was said of it.
spec = discover().dataset("digits")
pictures = spec.open(spec.params(), "test")
captions = [pictures[index].text() for index in range(len(pictures))]
similarity = torch.nn.functional.normalize(said, dim=1) @ torch.nn.functional.normalize(target, dim=1).T
nearest = [captions[place] for place in similarity.argmax(dim=1).tolist()]
for caption, answer in list(zip(captions, nearest, strict=True))[:5]:
    print(f"  {caption:32} is said to be  {answer}")

NAMES = {label for label in pictures.taxonomy.labels if pictures.taxonomy.depth(label) == 2}
digits, answers = (
    [next(word for word in text.split() if word in NAMES) for text in texts] for texts in (captions, nearest)
)
right = sum(digit == answer for digit, answer in zip(digits, answers, strict=True))
print(f"the digit is right for {right / len(digits):.0%}; by chance it would be for 10%")
