package sse

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of an event's fields.
const (
	// MaxName is the longest event name, in bytes.
	MaxName = 255
	// MaxEventChannels is the most channels that one event may go to.
	MaxEventChannels = 100
	// MaxID is the longest id that a publisher may give an event, in bytes.
	MaxID = 255
	// MaxRetry is the longest reconnection time that an event may set.
	MaxRetry = 24 * time.Hour
)

// reservedNames begins the names of the events that the hub itself sends.
const reservedNames = "hub:"

// An Event is what a publisher hands to a [Hub].
type Event struct {
	// Channels are where the event goes to, at least one, each once. An
	// event on several channels has one position, and a subscriber of
	// several of them gets it once.
	Channels []string
	// Name is the event's name (the field `event:`). Empty is the default
	// event, which a browser gives to onmessage. Names that begin with
	// "hub:" are the hub's own and refused.
	Name string
	// Data is what subscribers get, UTF-8, of any number of lines. It is
	// sent verbatim, except that CRLF and CR arrive as LF: the stream's
	// format knows one line end. Empty data is sent too.
	Data string
	// Retry sets the time after which a browser reconnects, in whole
	// milliseconds. Zero leaves it as it is.
	Retry time.Duration
	// ID is the publisher's own name for the event. A second event with it
	// within [RepeatWindow] is not published: its publish is answered with
	// the position of the first. Empty is none. Subscribers do not see it.
	ID string
	// End tells whether this is the last event of its channels.
	End Ending
}

// An Ending tells what an event does to its channels.
type Ending uint8

// A channel goes on, or ends for good: nothing can be published on it any more.
const (
	// EndNone is the zero value: more events may follow.
	EndNone Ending = iota
	// EndAfter ends the channels after this event.
	EndAfter
	// EndOnly ends the channels and sends no event. Name, Data and Retry
	// must be empty.
	EndOnly
)

// A FieldError says which field of an event is wrong, and why.
type FieldError struct {
	// Index is the event's place among those that were published together.
	Index int
	// Field is the envelope's name of the field: channel, channels, event,
	// data, retry, id, end.
	Field string
	// Reason tells what to mend.
	Reason string
}

// Error returns the field and the reason.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Validate returns a [*FieldError] for the first field that cannot be
// published, or nil.
func (e *Event) Validate() error {
	if reason := checkChannels(e.Channels); reason != "" {
		field := "channels"
		if len(e.Channels) == 1 {
			field = "channel"
		}
		return &FieldError{Field: field, Reason: reason}
	}
	if reason := checkName(e.Name); reason != "" {
		return &FieldError{Field: "event", Reason: reason}
	}
	if !utf8.ValidString(e.Data) {
		return &FieldError{Field: "data", Reason: "is not valid UTF-8; event streams carry only text, so encode binary data, for example as base64"}
	}
	if e.Retry < 0 || e.Retry > MaxRetry || e.Retry%time.Millisecond != 0 {
		return &FieldError{Field: "retry", Reason: fmt.Sprintf("must be whole milliseconds from 0 to %d", MaxRetry.Milliseconds())}
	}
	if reason := checkID(e.ID); reason != "" {
		return &FieldError{Field: "id", Reason: reason}
	}
	if e.End > EndOnly || (e.End == EndOnly && (e.Name != "" || e.Data != "" || e.Retry != 0)) {
		return &FieldError{Field: "end", Reason: "what only ends channels carries no event"}
	}
	return nil
}

func checkChannels(channels []string) string {
	switch n := len(channels); {
	case n == 0:
		return "an event needs at least one channel"
	case n > MaxEventChannels:
		return fmt.Sprintf("an event can go to %d channels at most, not %d", MaxEventChannels, n)
	}
	for i, name := range channels {
		if err := ValidateChannel(name); err != nil {
			return err.Error()
		}
		if slices.Contains(channels[:i], name) {
			return fmt.Sprintf("channel %q is named twice", name)
		}
	}
	return ""
}

func checkID(id string) string {
	switch {
	case len(id) > MaxID:
		return fmt.Sprintf("an id has %d bytes at most, not %d", MaxID, len(id))
	case !utf8.ValidString(id):
		return "is not valid UTF-8"
	case strings.ContainsAny(id, "\r\n\x00"):
		return "contains CR, LF or NUL"
	}
	return ""
}

func checkName(name string) string {
	switch {
	case len(name) > MaxName:
		return fmt.Sprintf("a name has %d bytes at most, not %d", MaxName, len(name))
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.ContainsAny(name, "\r\n\x00"):
		return "contains CR, LF or NUL, which would end the field on the wire"
	case strings.HasPrefix(name, reservedNames):
		return fmt.Sprintf("names that begin with %q are the hub's own", reservedNames)
	}
	return ""
}
