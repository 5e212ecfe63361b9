"""From a mask to its skeleton, and from the skeleton to chains of pixels between branch points and ends.

Thinned by scikit-image; chains and crossings are ours, since skan's branches end wherever two vessels cross.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from skimage.morphology import skeletonize

THICK = (
    48.0  # pixels; a shape of a greater half width is thinned at a lower resolution, or it would take minutes
)
ACUTE = 8.0  # half widths over which two crossing vessels may run as one
STRAIGHT = -0.9  # cosine between the two branches of a vessel that goes straight on
ROUNDS = 20  # of pruning, at most


class Chain(NamedTuple):
    """Pixels of the skeleton in a row between two nodes or ends."""

    pixels: np.ndarray  # (N, 2) float, (row, column)
    nodes: tuple[int, int]  # what it ends in, -1 for a free end
    closed: bool = False  # a loop without a branch point


class Graph(NamedTuple):
    """A skeleton as chains and the nodes at which they meet."""

    chains: list[Chain]
    nodes: np.ndarray  # (K, 2) float, (row, column)
    radius: np.ndarray  # (K,) float, half of the width there in pixels


def skeleton_graph(vessels: np.ndarray, distance: np.ndarray) -> Graph:
    """Thin a mask, take off the spurs that thinning leaves, and give the graph.

    Args:
        vessels: (H, W) bool.
        distance: (H, W) float, of every vessel pixel to the nearest pixel that is none.
    """
    skeleton = thinned(vessels, distance)
    graph = _graph(skeleton, distance)
    for _ in range(ROUNDS):
        spurs = _spurs(graph, distance)
        if not spurs:
            break
        for spur in spurs:
            rows, columns = graph.chains[spur].pixels.astype(int).T
            skeleton[rows, columns] = False
        graph = _graph(skeleton, distance)
    return _crossings_joined(graph)


def thinned(vessels: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The skeleton (H, W) bool of a mask; of very thick parts a coarse one."""
    if distance.max(initial=0) <= THICK:
        return _skeletonize(vessels)
    parts, count = ndimage.label(vessels, structure=np.ones((3, 3)))
    half_widths = ndimage.maximum(distance, parts, np.arange(count + 1))
    half_widths[0] = 0
    skeleton = _skeletonize(vessels & (half_widths <= THICK)[parts])
    for part in np.flatnonzero(half_widths > THICK):
        step = int(np.ceil(half_widths[part] / THICK))
        middle = step // 2
        coarse = np.pad(parts[middle::step, middle::step] == part, 1)
        rows, columns = np.nonzero(_skeletonize(coarse))
        first, second = _neighbours(rows, columns, coarse.shape)
        places = (np.stack([rows, columns], 1) - 1) * step + middle
        along = np.linspace(0, 1, step + 1)[:, None, None]
        lines = np.rint(places[first] + along * (places[second] - places[first])).astype(int)
        for drawn in (places, lines.reshape(-1, 2)):
            skeleton[drawn[:, 0], drawn[:, 1]] = True
    return skeleton & vessels


def _skeletonize(mask: np.ndarray) -> np.ndarray:
    """By Lee's method (1994): Zhang's, the usual one, thins some diagonal lines to a single pixel."""
    return skeletonize(mask, method="lee") > 0


def _neighbours(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels touch: pairs (E,) and (E,) of indices, each pair once.

    Two that touch at a corner are no neighbours if a third one touches both by its sides, so that a
    staircase has no triangles.
    """
    number = np.full((shape[0] + 2, shape[1] + 2), -1)
    rows, columns = rows + 1, columns + 1
    number[rows, columns] = np.arange(len(rows))
    below, right = number[rows + 1, columns], number[rows, columns + 1]
    left = number[rows, columns - 1]
    falling, rising = number[rows + 1, columns + 1], number[rows + 1, columns - 1]
    falling = np.where((below < 0) & (right < 0), falling, -1)
    rising = np.where((below < 0) & (left < 0), rising, -1)
    first, second = [], []
    for target in (below, right, falling, rising):
        there = np.flatnonzero(target >= 0)
        first.append(there)
        second.append(target[there])
    return np.concatenate(first), np.concatenate(second)


def _chains(first: np.ndarray, second: np.ndarray, count: int) -> list[list[int]]:
    """Walk along pixels of which none has more than two neighbours: each chain's indices in order.

    A closed chain begins and ends with the same index.
    """
    matrix = sparse.coo_array(
        (np.ones(2 * len(first), np.int8), (np.r_[first, second], np.r_[second, first])), (count, count)
    ).tocsr()
    starts, neighbours = matrix.indptr.tolist(), matrix.indices.tolist()
    degree = np.diff(matrix.indptr)
    visited = bytearray(count)
    chains = []
    for start in [*np.flatnonzero(degree <= 1).tolist(), *range(count)]:
        if visited[start]:
            continue
        chain, pixel = [], start
        while pixel >= 0:
            visited[pixel] = True
            chain.append(pixel)
            onward = [n for n in neighbours[starts[pixel] : starts[pixel + 1]] if not visited[n]]
            pixel = onward[0] if onward else -1
        if len(chain) > 2 and degree[start] == 2:
            chain.append(start)
        chains.append(chain)
    return chains


def _groups(first: ArrayLike, second: ArrayLike, count: int) -> tuple[int, np.ndarray]:
    """How many groups these pairs make of so many things, and the group of each, (count,) int."""
    ends = (
        np.asarray(first, np.int32),
        np.asarray(second, np.int32),
    )  # longer ones are too long for SciPy 1.11
    pairs = sparse.coo_array((np.ones(len(ends[0])), ends), (count, count))
    return connected_components(pairs, directed=False)


def _graph(skeleton: np.ndarray, distance: np.ndarray) -> Graph:
    rows, columns = np.nonzero(skeleton)
    count = len(rows)
    first, second = _neighbours(rows, columns, skeleton.shape)
    degree = np.bincount(np.r_[first, second], minlength=count)
    junction = degree > 2
    places = np.stack([rows, columns], 1).astype(float)

    together = junction[first] & junction[second]
    cluster = _groups(first[together], second[together], count)[1]
    names, node = np.unique(cluster[junction], return_inverse=True)
    node_of = np.full(count, -1)
    node_of[junction] = node.ravel()
    size = np.bincount(node.ravel(), minlength=len(names))
    nodes = np.stack(
        [np.bincount(node.ravel(), places[junction, axis], len(names)) / size for axis in (0, 1)], 1
    )
    radius = np.zeros(len(names))
    np.maximum.at(radius, node.ravel(), distance[rows[junction], columns[junction]])

    touched: dict[int, list[int]] = {}
    for a, b in ((first, second), (second, first)):
        outside = ~junction[a] & junction[b]
        for pixel, other in zip(a[outside].tolist(), node_of[b[outside]].tolist(), strict=True):
            touched.setdefault(pixel, []).append(other)
    plain = ~junction[first] & ~junction[second]
    chains = []
    for chain in _chains(first[plain], second[plain], count):
        if junction[chain[0]]:
            continue
        if len(chain) > 1 and chain[0] == chain[-1]:
            chains.append(Chain(places[chain[:-1]], (-1, -1), True))
        elif len(chain) == 1:
            ends = [*touched.get(chain[0], []), -1, -1]
            chains.append(Chain(places[chain], (ends[0], ends[1])))
        else:
            start, end = (touched.get(pixel, [-1])[0] for pixel in (chain[0], chain[-1]))
            chains.append(Chain(places[chain], (start, end)))
    return Graph(chains, nodes, radius)


def chain_length(pixels: np.ndarray) -> float:
    """The length of a chain from pixel to pixel, in pixels; too long by up to 8 %, good enough to compare."""
    return float(np.hypot(*np.diff(pixels, axis=0).T).sum()) if len(pixels) > 1 else 0.0


def _spurs(graph: Graph, distance: np.ndarray) -> list[int]:
    """Branches that stay within the width of what they come from: at each node the shortest one."""
    degree = np.zeros(len(graph.nodes), int)
    shortest: dict[int, tuple[float, int]] = {}
    for number, chain in enumerate(graph.chains):
        for end in chain.nodes:
            if end >= 0:
                degree[end] += 1
        node = max(chain.nodes)
        if chain.closed or min(chain.nodes) >= 0 or node < 0:
            continue
        tip = chain.pixels[-1] if chain.nodes[1] < 0 else chain.pixels[0]
        foot = chain.pixels[0] if chain.nodes[1] < 0 else chain.pixels[-1]
        reach = chain_length(chain.pixels) + float(np.hypot(*(foot - graph.nodes[node])))
        reach += distance[int(tip[0]), int(tip[1])]
        if reach <= 1.5 * graph.radius[node] + 1.5:
            shortest[node] = min(shortest.get(node, (np.inf, -1)), (reach, number))
    return [number for node, (_, number) in shortest.items() if degree[node] > 2]


def _crossings_joined(graph: Graph) -> Graph:
    """Thinning splits a crossing into two nodes: they become one.

    So do nodes that lie within the vessels' width of each other; farther apart, as where vessels cross at an
    acute angle, two nodes of three branches each are a crossing if each branch goes straight on from one to
    the other.
    """
    first, second, bridges = [], [], set()
    at = _branches(graph)
    for number, chain in enumerate(graph.chains):
        a, b = chain.nodes
        if min(a, b) < 0 or a == b:
            continue
        whole = np.vstack([graph.nodes[a], chain.pixels, graph.nodes[b]])
        radius = max(graph.radius[a], graph.radius[b])
        length = chain_length(whole)
        if length <= radius + 1 or (
            length <= ACUTE * radius + 2
            and _straight_on(
                [heading for branch, heading in at[a] if branch != number],
                [heading for branch, heading in at[b] if branch != number],
            )
        ):
            first.append(a)
            second.append(b)
            bridges.add(number)
    if not bridges:
        return graph
    count = len(graph.nodes)
    groups, group = _groups(first, second, count)
    size = np.bincount(group, minlength=groups)
    nodes = np.stack([np.bincount(group, graph.nodes[:, axis], groups) / size for axis in (0, 1)], 1)
    radius = np.zeros(groups)
    # what lies between the old nodes belongs to the new one
    np.maximum.at(radius, group, graph.radius + np.hypot(*(graph.nodes - nodes[group]).T))

    def joined(end: int) -> int:
        return int(group[end]) if end >= 0 else -1

    chains = [
        chain._replace(nodes=(joined(chain.nodes[0]), joined(chain.nodes[1])))
        for number, chain in enumerate(graph.chains)
        if number not in bridges
    ]
    return Graph(chains, nodes, radius)


def _branches(graph: Graph) -> dict[int, list[tuple[int, np.ndarray]]]:
    """By node, the chains that begin there and their directions (2,), each over a few widths."""
    at: dict[int, list[tuple[int, np.ndarray]]] = {node: [] for node in range(len(graph.nodes))}
    for number, chain in enumerate(graph.chains):
        for node, pixels in zip(chain.nodes, (chain.pixels, chain.pixels[::-1]), strict=True):
            if node >= 0:
                near, far = (int(n * graph.radius[node]) + n for n in (1, 4))
                start, end = pixels[min(near, len(pixels) - 1)], pixels[min(far, len(pixels) - 1)]
                way = end - start if len(pixels) > near + 3 else end - graph.nodes[node]
                at[node].append((number, way / max(float(np.hypot(*way)), 1e-9)))
    return at


def _straight_on(here: list[np.ndarray], there: list[np.ndarray]) -> bool:
    """Whether two branches here are the continuations of two there."""
    if len(here) != 2 or len(there) != 2:
        return False
    cosine = np.array(here) @ np.array(there).T
    return bool(min(max(cosine[0, 0], cosine[1, 1]), max(cosine[0, 1], cosine[1, 0])) < STRAIGHT)
