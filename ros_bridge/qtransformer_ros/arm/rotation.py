"""Quaternions x y z w, as ROS writes them, and rotation vectors [rad]."""

import math

import numpy as np


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """First `b`, then `a`: both (4,)."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.array([*vector, a[3] * b[3] - a[:3] @ b[:3]])


def inverse(q: np.ndarray) -> np.ndarray:
    """Of a unit quaternion."""
    return np.array([*-q[:3], q[3]])


def rotate(q: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A vector (3,) turned by a unit quaternion."""
    twice = 2.0 * np.cross(q[:3], vector)
    return vector + q[3] * twice + np.cross(q[:3], twice)


def from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation by the length of (3,) [rad] about its direction."""
    angle = float(np.linalg.norm(vector))
    return np.array([*(0.5 * np.sinc(angle / (2 * np.pi)) * vector), np.cos(angle / 2)])


def to_vector(q: np.ndarray) -> np.ndarray:
    """The shortest rotation vector (3,) [rad] of a unit quaternion."""
    q = q if q[3] >= 0 else -q
    sine = float(np.linalg.norm(q[:3]))
    return 2.0 * q[:3] if sine < 1e-9 else q[:3] * (2.0 * np.arctan2(sine, q[3]) / sine)


def nearer_of_both(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """`end` or its negative, which are one rotation: the one on the shorter way from `start`."""
    return end if start @ end >= 0 else -end


def angle_between(start: np.ndarray, end: np.ndarray) -> float:
    """Of the rotation from one unit quaternion to another, along the shorter way [rad]."""
    end = nearer_of_both(start, end)
    return 4 * math.atan2(math.hypot(*(end - start)), math.hypot(*(end + start)))  # exact for small angles, unlike acos


def slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The unit quaternion at `share` of the shorter way from one to another that is not the same."""
    half = angle_between(start, end) / 2
    between = (math.sin((1 - share) * half) * start + math.sin(share * half) * nearer_of_both(start, end)) / math.sin(half)
    return between / math.hypot(*between)


def shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """The vector itself, or one of its direction and of length `longest`."""
    length = math.hypot(*vector)
    return vector if length <= longest else vector * (longest / length)
