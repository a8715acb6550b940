package redistest

import (
	"bufio"
	"io"
	"strings"
	"sync"
)

// output collects what a process writes, and notices when it writes something.
type output struct {
	until  string
	serves chan struct{} // closed then

	mu   sync.Mutex // guards text
	text strings.Builder
}

// copy ends with the process.
func (o *output) copy(from io.Reader) {
	found := sync.OnceFunc(func() { close(o.serves) })
	for lines := bufio.NewScanner(from); lines.Scan(); {
		o.mu.Lock()
		o.text.WriteString(lines.Text() + "\n")
		o.mu.Unlock()
		if strings.Contains(lines.Text(), o.until) {
			found()
		}
	}
}

func (o *output) String() string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
