"""`/api/course-numbers`: every figure that the course prints, the rule behind it, and the exact value."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.shape import shape
from loralens.planner.course import course_answer
from loralens.planner.course_shapes import CourseAnswer

router = APIRouter(tags=["course"])


@router.get("/course-numbers", summary="The course's figures, checked", response_model=shape(CourseAnswer))
def course_numbers() -> Response:
    """Each with its formula, what the formula gives, what is exact instead, and a verdict in both languages."""
    return respond(course_answer())
