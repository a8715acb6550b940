package ssetest

var (
	Goroutines = goroutines
	Leaked     = leaked
)
