"""The student: the model that is trained and served by default, whose users are their histories."""

from hashlgn.training.student.run import TrainedStudent
from hashlgn.training.student.teachers import Ease, FloatStudent, Mixture, Teacher
from hashlgn.training.student.trainer import train_student

__all__ = ["Ease", "FloatStudent", "Mixture", "Teacher", "TrainedStudent", "train_student"]
