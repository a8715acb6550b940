package sse

import (
	"strconv"
	"strings"
	"time"
)

// AppendEvent appends an event at a position to b, as the bytes that every
// subscriber is sent: the fields id, retry, event and data in that order and
// the empty line that dispatches it (WHATWG HTML, section 9.2.6).
//
// The event must have passed [Event.Validate]; its channels are not part of
// the bytes.
func AppendEvent(b []byte, at Position, e *Event) []byte {
	b = appendID(b, at)
	if e.Retry > 0 {
		b = appendRetry(b, e.Retry)
	}
	if e.Name != "" {
		b = appendField(b, "event", e.Name)
	}
	b = appendData(b, e.Data)
	return append(b, '\n')
}

func appendID(b []byte, at Position) []byte {
	b = append(b, "id: "...)
	b = at.AppendTo(b)
	return append(b, '\n')
}

func appendRetry(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n')
}

// appendField appends one line. The value must hold no line end.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, '\n')
}

// appendData appends one data line for each line of data, which ends at CRLF,
// CR or LF alike: an encoder that splits on LF alone lets a lone CR smuggle
// fields into the stream. Empty data is one line, without which nothing would
// be dispatched; a line end at the very end is one more, empty line, which the
// reader turns back into the line end.
func appendData(b []byte, data string) []byte {
	for {
		end := strings.IndexAny(data, "\r\n")
		if end < 0 {
			return appendField(b, "data", data)
		}
		b = appendField(b, "data", data[:end])
		if strings.HasPrefix(data[end:], "\r\n") {
			end++
		}
		data = data[end+1:]
	}
}
