package sse

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"
)

// The frames that the hub sends of its own.

// openFrame is the first frame of a stream.
func (s *Subscriber) openFrame() []byte {
	b := appendRetry(nil, s.retry.duration())
	b = append(s.appendCursorID(append(b, "id: "...)), '\n')
	return s.appendState(b, "hub:open", s.opening)
}

// resetFrame tells of events that went missing while the stream was open.
func (s *Subscriber) resetFrame(resets []Reset) []byte {
	b := append(s.appendCursorID([]byte("id: ")), '\n')
	return s.appendState(b, "hub:reset", opening{ResumeReset, resets})
}

func (s *Subscriber) appendState(b []byte, event string, o opening) []byte {
	return appendOwn(b, event, struct {
		Connection string   `json:"connection"`
		Channels   []string `json:"channels"`
		Resume     Resume   `json:"resume"`
		Resets     []Reset  `json:"reset,omitempty"`
	}{s.session.connection, namesOf(s.main().named), o.resume, o.resets})
}

// channelsFrame tells of a change of what the stream gets, and moves the
// client's cursor to an id.
func (s *Subscriber) channelsFrame(id string) []byte {
	b := append(append(append([]byte(nil), "id: "...), id...), '\n')
	return appendOwn(b, "hub:channels", struct {
		Channels []string `json:"channels"`
	}{namesOf(s.named)})
}

// namesOf makes an empty list of none, which JSON would have as null.
func namesOf(names []string) []string {
	if names == nil {
		return []string{}
	}
	return names
}

func (s *Subscriber) at() Position { return Position{Epoch: s.hub.epoch, Seq: s.position} }

// keepaliveComment says nothing. The frame ends with an empty line.
const keepaliveComment = ": keepalive\n"

// keepaliveFrame is a comment, with the id to which the client's cursor can
// move without having been sent an event, and the reconnection time if that has
// changed.
func (s *Subscriber) keepaliveFrame() (b []byte) {
	if s.untold {
		s.untold = false
		b = appendRetry(b, s.retry.duration())
	}
	if s.settle() {
		return s.appendCursor(b)
	}
	return append(b, keepaliveComment+"\n"...)
}

// appendCursor appends a keepalive that moves the client's cursor to the
// position. A browser takes the id and fires nothing (WHATWG HTML, section
// 9.2.6: a block without data).
func (s *Subscriber) appendCursor(b []byte) []byte {
	return append(appendID(append(b, keepaliveComment...), s.at()), '\n')
}

// closeFrame is the last frame of a stream that the hub ends.
func closeFrame(reason CloseReason, retry time.Duration) []byte {
	return appendOwn(appendRetry(nil, retry), "hub:close", struct {
		Reason CloseReason `json:"reason"`
	}{reason})
}

// appendEnd tells that a channel has ended.
func appendEnd(b []byte, channel string) []byte {
	return appendOwn(b, "hub:end", struct {
		Channel string `json:"channel"`
	}{channel})
}

func appendOwn(b []byte, event string, data any) []byte {
	b = appendField(b, "event", event)
	var text strings.Builder
	encoder := json.NewEncoder(&text) // ends with a line feed, and escapes those within
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(data); err != nil {
		panic("sse: encode " + event + ": " + err.Error()) // only strings are in it
	}
	b = append(b, "data: "...)
	b = append(b, text.String()...)
	return append(b, '\n')
}

// jitter returns d, or the fallback if it is zero, and up to half of it more.
// A crowd that was dropped together does not come back together.
func jitter(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		d = fallback
	}
	return (d + time.Duration(rand.Int64N(int64(d)/2+1))).Truncate(time.Millisecond)
}
