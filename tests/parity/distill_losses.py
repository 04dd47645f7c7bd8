"""The distillation losses in plain PyTorch, each from its paper's formula, to compare Retort's with.

Every function takes (student, teachers, labels, **keys of the [[loss]] block) and returns the unweighted loss. `student`
and each of `teachers` are dicts of taps: "layer1" ... [B, C, H, W], "pooled" [B, D], "logits" [B, classes]. Plainness
counts here, not memory or speed.
"""
import torch
from torch.nn import functional as F


def teacher_logits(teachers, temperature):
    """Of several teachers the logits whose softmax at this temperature is the mean of theirs."""
    if len(teachers) == 1:
        return teachers[0]["logits"]
    return temperature * torch.stack([F.softmax(t["logits"] / temperature, 1) for t in teachers]).mean(0).log()


def standardized(z):
    """Sun et al. 2024, eq. 11."""
    return (z - z.mean(1, keepdim=True)) / (z.std(1, unbiased=True, keepdim=True) + 1e-7)


def logit_pair(student, teachers, temperature, standardize):
    pair = student["logits"], teacher_logits(teachers, temperature)
    return tuple(map(standardized, pair)) if standardize else pair


def map_pairs(student, teachers, taps, teacher_taps=None):
    """Feature maps side by side, the larger one averaged down to the size of the smaller."""
    for tap, teacher_tap in zip(taps, teacher_taps or taps):
        s, t = student[tap], teachers[0][teacher_tap]
        size = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
        yield F.adaptive_avg_pool2d(s, size), F.adaptive_avg_pool2d(t, size)


STAGES = ("layer1", "layer2", "layer3")


# --- on logits

def cross_entropy(student, teachers, labels, label_smoothing=0.0):
    return F.cross_entropy(student["logits"], labels, label_smoothing=label_smoothing)


def soft_targets(student, teachers, labels, temperature=4.0, standardize=False):
    """Hinton et al. 2015: T² KL(teacher || student), the sum over classes, the mean over the batch."""
    s, t = logit_pair(student, teachers, temperature, standardize)
    p = F.softmax(t / temperature, 1)
    kl = (p * (F.log_softmax(t / temperature, 1) - F.log_softmax(s / temperature, 1))).sum(1)
    return kl.mean() * temperature ** 2


def soft_cross_entropy(student, teachers, labels, temperature=1.0, standardize=False):
    """Shen & Savvides 2020, eq. 4."""
    s, t = logit_pair(student, teachers, temperature, standardize)
    return -(F.softmax(t / temperature, 1) * F.log_softmax(s / temperature, 1)).sum(1).mean() * temperature ** 2


def logit_mse(student, teachers, labels, standardize=False):
    s, t = logit_pair(student, teachers, 1.0, standardize)
    return ((s - t) ** 2).mean()


def dkd(student, teachers, labels, temperature=4.0, standardize=False, alpha=1.0, beta=8.0):
    """Zhao et al. 2022, eq. 7. The other classes get a softmax of their own: the target's column is taken out."""
    s, t = logit_pair(student, teachers, temperature, standardize)
    target = F.one_hot(labels, s.shape[1]).bool()

    def split(z):
        z = z / temperature
        log_p = F.log_softmax(z, 1)[target]
        others = z[~target].view(len(z), -1)
        log_rest = torch.logsumexp(others, 1) - torch.logsumexp(z, 1)
        return log_p, log_rest, F.log_softmax(others, 1)

    (s_target, s_rest, s_others), (t_target, t_rest, t_others) = split(s), split(t)
    target_kd = t_target.exp() * (t_target - s_target) + t_rest.exp() * (t_rest - s_rest)
    other_kd = (t_others.exp() * (t_others - s_others)).sum(1)
    return (alpha * target_kd.mean() + beta * other_kd.mean()) * temperature ** 2


def dist(student, teachers, labels, temperature=4.0, standardize=False, beta=1.0, gamma=1.0):
    """Huang et al. 2022, eq. 6 to 9: one minus the correlation of rows (inter) and of columns (intra)."""
    s, t = logit_pair(student, teachers, temperature, standardize)
    s, t = F.softmax(s / temperature, 1), F.softmax(t / temperature, 1)

    def pearson(a, b):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    return temperature ** 2 * (beta * (1 - pearson(s, t)) + gamma * (1 - pearson(s.t(), t.t())))


# --- on feature maps

def similarity_preserving(student, teachers, labels, taps=("layer3",), teacher_taps=None):
    """Tung & Mori 2019, eq. 2 to 4."""
    def similarities(x):
        x = x.flatten(1)
        return F.normalize(x @ x.t(), dim=1)

    pairs = zip(taps, teacher_taps or taps)
    differences = [similarities(teachers[0][b]) - similarities(student[a]) for a, b in pairs]
    return sum((d ** 2).sum() / len(labels) ** 2 for d in differences)


def attention_transfer(student, teachers, labels, taps=STAGES, teacher_taps=None, p=2.0):
    """Zagoruyko & Komodakis 2017, eq. 2, with the mean over positions of their code."""
    def attention(x):
        return F.normalize(x.abs().pow(p).mean(1).flatten(1), dim=1)

    return sum(((attention(s) - attention(t)) ** 2).mean() for s, t in map_pairs(student, teachers, taps, teacher_taps))


def nst(student, teachers, labels, taps=STAGES, teacher_taps=None):
    """Huang & Wang 2017, eq. 6 with the kernel (a b)²: all pairs of channels of one sample."""
    def kernel_mean(a, b):
        return (torch.bmm(a, b.transpose(1, 2)) ** 2).mean()

    total = 0
    for s, t in map_pairs(student, teachers, taps, teacher_taps):
        s, t = F.normalize(s.flatten(2), dim=2), F.normalize(t.flatten(2), dim=2)
        total = total + kernel_mean(t, t) + kernel_mean(s, s) - 2 * kernel_mean(s, t)
    return total


# --- on relations between samples

def smooth_l1(a, b):
    d = (a - b).abs()
    return torch.where(d < 1, 0.5 * d * d, d - 0.5).mean()


def distances(x):
    """All B x B of them; those of a sample to itself are exactly zero and have no gradient."""
    squared = ((x[:, None] - x[None, :]) ** 2).sum(2).clamp(min=1e-12)
    return squared.sqrt() * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))


def distances_over_mean(x):
    d = distances(x)
    return d / d[d > 0].mean()


def angles(x):
    """cos of the angle at i between j and k, B x B x B; zero where i is j or k."""
    unit = F.normalize(x[None, :] - x[:, None], dim=2)
    return torch.bmm(unit, unit.transpose(1, 2))


def features(student, teachers, taps, teacher_taps):
    return student[taps[0]].flatten(1), teachers[0][(teacher_taps or taps)[0]].flatten(1)


def rkd(student, teachers, labels, taps=("pooled",), teacher_taps=None, distance_weight=25.0, angle_weight=50.0):
    """Park et al. 2019, eq. 7 to 10."""
    s, t = features(student, teachers, taps, teacher_taps)
    return (distance_weight * smooth_l1(distances_over_mean(s), distances_over_mean(t)) +
            angle_weight * smooth_l1(angles(s), angles(t)))


def distance_metric(student, teachers, labels, taps=("pooled",), teacher_taps=None, criterion="smooth_l1",
                    normalize=False):
    s, t = map(distances_over_mean if normalize else distances, features(student, teachers, taps, teacher_taps))
    return smooth_l1(s, t) if criterion == "smooth_l1" else ((s - t) ** 2).mean()


def pkt(student, teachers, labels, taps=("pooled",), teacher_taps=None):
    """Passalis & Tefas 2018, eq. 4 to 6 with the cosine kernel; the mean over all pairs, as in their code."""
    def probabilities(x):
        x = F.normalize(x, dim=1)
        similarity = (x @ x.t() + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    s, t = map(probabilities, features(student, teachers, taps, teacher_taps))
    return (t * torch.log((t + 1e-7) / (s + 1e-7))).mean()


LOSSES = {f.__name__: f for f in (
    cross_entropy, soft_targets, soft_cross_entropy, logit_mse, dkd, dist, similarity_preserving, attention_transfer, nst,
    rkd, distance_metric, pkt)}
