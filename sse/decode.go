package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// DefaultDecodeLimit is how many bytes a [Decoder] accepts in one block
// unless [Decoder.SetLimit] says otherwise: 16 MiB.
const DefaultDecodeLimit = 16 << 20

// ErrTooLong is what [Decoder.Decode] returns, wrapped, when a block holds more
// bytes than the limit. Test for it with errors.Is(err, sse.ErrTooLong).
var ErrTooLong = errors.New("sse: event block too long")

// decodeBufferSize is what a Decoder starts with. Events are mostly smaller,
// and a client that holds thousands of streams pays this for each.
const decodeBufferSize = 4 << 10

// maxEmptyReads is how often a reader may answer (0, nil) in a row, as in bufio.
const maxEmptyReads = 100

var byteOrderMark = []byte("\uFEFF")

// A Message is one event as a browser's EventSource would fire it.
type Message struct {
	// ID is the last event ID at the time of dispatch: the id of this block or,
	// when it has none, of the latest block before it that had one.
	ID string

	// Event is the event's name, "message" when the block names none.
	Event string

	// Data is the lines of data joined by LF, without an LF after the last.
	Data string
}

// A Decoder reads the messages of an event stream by the rules of the HTML
// standard, section 9.2.6, "Interpreting an event stream". It is as lenient as
// a browser: no bytes are malformed, what it does not know it ignores.
//
// Text that is not UTF-8 becomes U+FFFD where and as often as the Encoding
// standard's "UTF-8 decode" says: once for each maximal subpart of an ill-formed
// sequence. (Go's range loop gives one for each byte of it, strings.ToValidUTF8
// one for a whole run.)
//
// A Decoder is not safe for concurrent use, and its zero value is not usable:
// call [NewDecoder]. It keeps a buffer as large as the largest block so far;
// the strings that it returns do not refer to that buffer.
type Decoder struct {
	r         io.Reader
	limit     int
	onComment func(text string)

	// buf[start:end] is read and not yet consumed; no line ends in
	// buf[start:scanned], so that long lines are scanned only once.
	buf                 []byte
	start, scanned, end int
	readErr             error // from r; counts once the buffer is used up
	err                 error // what every further Decode returns
	begun               bool  // past the first line, the only one with a byte order mark
	skipLF              bool  // the last line ended in CR: an LF next belongs to it

	// The block being read. Text stays raw until the block is dispatched: all
	// that the syntax looks at is ASCII, which UTF-8 decoding leaves in place.
	size  int // bytes of its lines so far, comments left out
	data  []byte
	event []byte
	id    []byte // the only one that outlasts the block

	lastID    string
	lastEvent string // the last name dispatched; names repeat, so one string serves many
	retry     time.Duration
	hasRetry  bool
}

// NewDecoder returns a Decoder that reads from r. It buffers, so it may read
// more from r than the messages it has returned.
func NewDecoder(r io.Reader) *Decoder {
	return &Decoder{r: r, limit: DefaultDecodeLimit}
}

// SetLimit sets how many bytes one block may hold: its lines as they are on the
// wire, each line end counted as one byte and comments left out, plus the line
// being read, whatever it is. Zero means [DefaultDecodeLimit], a negative n
// means no limit. Memory use stays within a small multiple of the limit.
func (d *Decoder) SetLimit(n int) {
	switch {
	case n == 0:
		n = DefaultDecodeLimit
	case n < 0:
		n = math.MaxInt
	}
	d.limit = n
}

// OnComment sets a function that is told of every comment line: the text after
// the colon, less one leading space. Decode calls it in the order of the stream,
// before it reads on, so it must not call Decode itself. Nil, as at the start,
// drops comments.
func (d *Decoder) OnComment(fn func(text string)) {
	d.onComment = fn
}

// LastEventID returns the last event ID, which a client presents when it
// reconnects. A complete block with an id moves it even when it has no data and
// so gives no message; the id of an unfinished block does not count. It starts
// empty, as the standard has it: a client that reconnects and is sent no id
// keeps the one it had by itself.
func (d *Decoder) LastEventID() string {
	return d.lastID
}

// Retry returns the last valid reconnection time of the stream, and whether
// there was one. It takes effect with its line, not with its block. Numbers too
// large for a Duration give the largest whole millisecond that fits.
func (d *Decoder) Retry() (time.Duration, bool) {
	return d.retry, d.hasRetry
}

// Decode returns the next message. It does so as soon as the first byte of the
// line end of the block's blank line has been read: an LF after a CR is not
// waited for.
//
// At the end of the stream the error is io.EOF, also when that leaves a block
// unfinished, which the standard discards. Other errors of the reader come
// wrapped, and a block over the limit gives [ErrTooLong]. Messages complete
// before an error are returned before it. Every call after an error returns the
// same error again.
func (d *Decoder) Decode() (Message, error) {
	for {
		line, err := d.readLine()
		if err != nil {
			return Message{}, err
		}
		if !d.begun {
			d.begun = true
			line = bytes.TrimPrefix(line, byteOrderMark)
		}
		if len(line) > 0 {
			d.processLine(line)
		} else if msg, ok := d.dispatch(); ok {
			return msg, nil
		}
	}
}

// readLine returns the next line without its end. The line is only valid until
// the next call. Where a block turns out too long does not depend on how the
// stream was cut into reads.
func (d *Decoder) readLine() ([]byte, error) {
	for d.err == nil {
		if d.skipLF && d.start < d.end {
			d.skipLF = false
			if d.buf[d.start] == '\n' {
				d.start++
				d.scanned = d.start
			}
		}
		for i, c := range d.buf[d.scanned:d.end] {
			if c != '\n' && c != '\r' {
				continue
			}
			line := d.buf[d.start : d.scanned+i]
			d.skipLF = c == '\r'
			d.start += len(line) + 1
			d.scanned = d.start
			if len(line) > 0 && d.tooLong(len(line)+1) {
				return nil, d.err
			}
			return line, nil
		}
		d.scanned = d.end
		switch {
		case d.tooLong(d.end - d.start):
		case d.readErr != nil:
			d.err = d.readErr
		default:
			d.fill()
		}
	}
	return nil, d.err
}

// tooLong reports whether n more bytes are too many for this block, and if so
// sets the error.
func (d *Decoder) tooLong(n int) bool {
	if n <= d.limit-d.size {
		return false
	}
	d.err = fmt.Errorf("%w: more than %d bytes", ErrTooLong, d.limit)
	return true
}

// fill reads once into the buffer, after making room. It reads what there is,
// never waiting for the buffer to fill up.
func (d *Decoder) fill() {
	if d.start > 0 {
		d.end = copy(d.buf, d.buf[d.start:d.end])
		d.start, d.scanned = 0, d.end
	}
	if d.end == len(d.buf) {
		grown := make([]byte, max(decodeBufferSize, 2*len(d.buf)))
		copy(grown, d.buf)
		d.buf = grown
	}
	for range maxEmptyReads {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		if err != nil && err != io.EOF { //nolint:errorlint // Only a bare io.EOF is the clean end.
			err = fmt.Errorf("read event stream: %w", err)
		}
		d.readErr = err
		if n > 0 || err != nil {
			return
		}
	}
	d.readErr = fmt.Errorf("read event stream: %w", io.ErrNoProgress)
}

// processLine interprets a line that is not blank.
func (d *Decoder) processLine(line []byte) {
	name, value, colon := bytes.Cut(line, []byte{':'})
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	if colon && len(name) == 0 {
		// Comments do not count as part of the block: nothing of them is held,
		// and a server may send keepalives for months without a blank line.
		if d.onComment != nil {
			d.onComment(decodeUTF8(value))
		}
		return
	}
	d.size += len(line) + 1
	switch string(name) {
	case "data":
		d.data = append(append(d.data, value...), '\n')
	case "event":
		d.event = append(d.event[:0], value...)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			d.id = append(d.id[:0], value...)
		}
	case "retry":
		if retry, ok := parseRetry(value); ok {
			d.retry, d.hasRetry = retry, true
		}
	}
}

// dispatch ends the block. There is a message if it had a data line, be it an
// empty one: that has put an LF into the data buffer, which is all the standard
// asks for.
func (d *Decoder) dispatch() (Message, bool) {
	if string(d.id) != d.lastID {
		d.lastID = decodeUTF8(d.id)
	}
	data, event := d.data, d.event
	d.size, d.data, d.event = 0, d.data[:0], d.event[:0]
	if len(data) == 0 {
		return Message{}, false
	}
	msg := Message{ID: d.lastID, Event: "message", Data: decodeUTF8(data[:len(data)-1])}
	if len(event) > 0 {
		if string(event) != d.lastEvent {
			d.lastEvent = decodeUTF8(event)
		}
		msg.Event = d.lastEvent
	}
	return msg, true
}

// parseRetry reads a reconnection time: one or more ASCII digits, in
// milliseconds.
func parseRetry(value []byte) (time.Duration, bool) {
	const most = math.MaxInt64 / int64(time.Millisecond)
	var ms int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = min(ms*10+int64(c-'0'), most)
	}
	return time.Duration(ms) * time.Millisecond, len(value) > 0
}

// decodeUTF8 copies b to a string, with U+FFFD for what is not UTF-8. Doing so
// for a line or a block at a time gives what decoding the whole stream would,
// for an ill-formed sequence never reaches past a line end.
func decodeUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	text := make([]byte, 0, len(b)+2*utf8.UTFMax)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = illFormed(b)
		}
		text = utf8.AppendRune(text, r)
		b = b[n:]
	}
	return string(text)
}

// illFormed returns how many bytes of b, which does not begin with a whole
// UTF-8 sequence, one U+FFFD replaces: as many as could begin one, at least 1.
func illFormed(b []byte) int {
	more, low, high := 0, byte(0x80), byte(0xBF)
	switch lead := b[0]; {
	case lead >= 0xC2 && lead <= 0xDF:
		more = 1
	case lead >= 0xE0 && lead <= 0xEF:
		more = 2
		if lead == 0xE0 {
			low = 0xA0 // below: overlong
		} else if lead == 0xED {
			high = 0x9F // above: surrogates
		}
	case lead >= 0xF0 && lead <= 0xF4:
		more = 3
		if lead == 0xF0 {
			low = 0x90 // below: overlong
		} else if lead == 0xF4 {
			high = 0x8F // above: past U+10FFFF
		}
	}
	n := 1
	for n <= more && n < len(b) && b[n] >= low && b[n] <= high {
		n, low, high = n+1, 0x80, 0xBF
	}
	return n
}
