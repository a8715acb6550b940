package sse

// ServedBeforeOne returns how many streams of a crowd a writer takes up before one
// that was woken alone after them, and how many a turn has.
func ServedBeforeOne(crowd int) (most, served int) {
	w := &writer{}
	one := &directStream{writer: w}
	for range crowd {
		(&directStream{writer: w}).wake(crowd)
	}
	one.wake(1)
	var taken [2 * turn]*directStream
	for {
		n := w.take(taken[:])
		for _, st := range taken[:n] {
			if st == one {
				return turn, served
			}
			served++
		}
	}
}
