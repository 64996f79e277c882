"""Graphs as state machines of AWS Step Functions (Amazon States Language, JSONPath). Pure: texts from declarations."""
