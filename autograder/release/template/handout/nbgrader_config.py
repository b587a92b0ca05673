import os

c = get_config()
c.CourseDirectory.course_id = "ebmcourse"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", ".*", "data", "runs"]
c.CourseDirectory.max_dir_size = 4_000_000
c.Exchange.root = os.environ.get("NBGRADER_EXCHANGE", "/usr/local/share/nbgrader/exchange")
