"""What runs in the process of a submission, with the student's code. Nothing here knows a reference or a mark.

Everything else in `ebmcourse.checking` runs in a trusted process and never imports a submission. The trusted side uses
`student.Student` too, but only to load the reference.
"""
