"""Short trainings of the notebook's network under other optimisers; scored on real heads."""
import json, sys, time
from pathlib import Path

import torch
torch.set_num_threads(1)
from nogaps.Assessment import *
from nogaps.Assessment import (Options, PROFILES, corrupt, fill, make_datasets, new_imputer, train_epoch,
    training_batches, validate, DataLoader, ema_of)
from nogaps.metrics import bootstrap, hole_scores
from nogaps.prior.frames import load_frames, to_size
from nogaps.runtime.files import load_images
from nogaps.standin import course_mask
import nogaps.Assessment as A

def orthogonal(g, steps=5):
    """Newton-Schulz of Muon (Jordan 2024): the nearest semi-orthogonal matrix, roughly."""
    x = g / (g.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.mT
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x if wide else x.mT

class Muon(torch.optim.AdamW):
    """AdamW, except that kernels of convolutions take orthogonalised momentum."""
    def __init__(self, params, scale=1.0, wd=1e-3, momentum=0.95):
        params = list(params)
        self.kernels = [p for p in params if p.ndim == 4 and min(p.shape[0], p[0].numel()) > 2]
        ids = {id(p) for p in self.kernels}
        super().__init__([p for p in params if id(p) not in ids], weight_decay=wd)
        self.momentum, self.scale, self.wd = momentum, scale, wd
        self.buf = [torch.zeros_like(p) for p in self.kernels]
    @torch.no_grad()
    def step(self, closure=None):
        lr = self.param_groups[0]["lr"]
        for p, m in zip(self.kernels, self.buf):
            m.lerp_(p.grad, 1 - self.momentum)
            u = p.grad.lerp(m, self.momentum)
            u = orthogonal(u.flatten(1))
            u = u * 0.2 * max(u.shape) ** 0.5
            p.mul_(1 - lr * self.wd).add_(u.view_as(p), alpha=-lr * self.scale)
            p.grad = None
        super().step()
    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)
        for p in self.kernels: p.grad = None

name, kind, peak, epochs, batch = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
x = torch.from_numpy(load_images(Path("runs/full/samples/images.npy")))
mask = torch.from_numpy(course_mask())[None, None]
train_set, val_set = make_datasets(x, mask, 0)
net = new_imputer(PROFILES["full"], train_set.tensors[1], 0)
ema = ema_of(net)
opt = Muon(net.parameters()) if kind == "muon" else torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
scaler = torch.amp.GradScaler("cpu", enabled=False)
old = A.learning_rate
A.learning_rate = lambda step, steps: old(step, steps, peak)
options = Options(epochs, 0, batch)
val = {}
for k in ("heads", "heads_t1", "heads_t1_more"):
    images, groups = load_frames(Path(f"runs/frames/{k}.npz"), "val")
    val[k] = to_size(images), groups
for epoch in range(epochs):
    t = time.time()
    torch.manual_seed(epoch)
    loss = train_epoch(net, ema, opt, scaler, training_batches(train_set, epoch, options, torch.device("cpu")), mask)
    v = validate(ema.module, DataLoader(val_set, 128), mask)
    print(name, epoch, f"{loss:.5f} {v:.5f} {time.time() - t:.0f}s", flush=True)
ema.module.eval()
row = {}
with torch.no_grad():
    for k, (images, g) in val.items():
        row[k] = round(float(hole_scores(fill(ema.module, corrupt(images, mask), mask), images, mask)["psnr"].mean()), 3)
print(name, json.dumps(row), flush=True)
torch.save({"ema": ema.module.state_dict()}, f"runs/{name}.pt")
