package sse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// A SharedBroker is one whose record several hubs follow, as a rule each in a process
// of its own. What concerns the streams of all of them they ask each other by way of
// the broker: Tail delivers questions too, none of them later than an event that was
// published after it was asked.
type SharedBroker interface {
	Broker

	// Ask puts a question to the hubs that follow the record, and returns their answers,
	// in no order. It waits for those that are known to be alive, its own
	// among them, and no longer than ctx. The error matches [ErrUnavailable] if the
	// question could not be put, or one that is alive has not answered: what was asked
	// may have been done, or not. Beside that error are the answers that there are.
	Ask(ctx context.Context, question []byte) (answers [][]byte, err error)

	// Answer answers a question that Tail delivered. It may block. An answer that
	// cannot be given is as none: who asked does without, or fails.
	Answer(ctx context.Context, q Question, answer []byte) error

	// Mark has all hubs know for some days that there is something about connections
	// that they might ask for, and Marked reports it. The errors match
	// [ErrUnavailable].
	Mark(ctx context.Context, connections ...string) error
	Marked(ctx context.Context, connection string) (bool, error)
}

// A Question is in an entry in place of an event.
type Question struct {
	// ID tells it from others.
	ID string
	// From is the node that asks.
	From string
	Body []byte
	// Late is set if nobody waits for the answer any more.
	Late bool
}

// A question is what a hub asks all that follow its record. One field is set.
type question struct {
	Kick   *Selection       `json:"kick,omitempty"`
	List   *listQuestion    `json:"list,omitempty"`
	Assign *assignQuestion  `json:"assign,omitempty"`
	Change *changeQuestion  `json:"change,omitempty"`
	Knows  *sessionQuestion `json:"knows,omitempty"`
	Take   *sessionQuestion `json:"take,omitempty"`
	Count  []string         `json:"count,omitempty"`
}

// A listQuestion asks for a page of connections.
type listQuestion struct {
	Selection Selection `json:"selection"`
	After     string    `json:"after"`
	Limit     int       `json:"limit"`
}

// An assignQuestion asks for a change from inside.
type assignQuestion struct {
	Selection Selection `json:"selection"`
	Change    Change    `json:"change"`
}

// A changeQuestion asks for a change that a client wants.
type changeQuestion struct {
	sessionQuestion
	Change Change `json:"change"`
}

// A sessionQuestion is about a connection of a user.
type sessionQuestion struct {
	Connection string `json:"connection"`
	User       string `json:"user"`
}

// An answer is what one hub says. Only what was asked for is set.
type answer struct {
	// N is how many connections were kicked or changed.
	N           int              `json:"n,omitempty"`
	Counts      []int            `json:"counts,omitempty"`
	Connections []ConnectionInfo `json:"connections,omitempty"`
	Channels    []string         `json:"channels,omitempty"`
	Known       uint64           `json:"known,omitempty"`
	Opened      int64            `json:"opened,omitempty"` // when the stream that is known was
	Session     *sessionState    `json:"session,omitempty"`
	Failure     *failure         `json:"failure,omitempty"`
}

// A failure is an error that has come from another hub.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// failures are the errors that are told apart.
var failures = map[string]error{
	"no_connection": ErrNoConnection,
	"connection":    ErrConnection,
	"change":        ErrChange,
	"withdrawn":     ErrWithdrawn,
	"changing":      ErrChanging,
	"overtaken":     ErrOvertaken,
	"channel":       ErrChannel,
	"unavailable":   ErrUnavailable,
}

func newFailure(err error) *failure {
	if err == nil {
		return nil
	}
	for kind, known := range failures {
		if errors.Is(err, known) {
			return &failure{kind, err.Error()}
		}
	}
	return &failure{Text: err.Error()}
}

// Error implements error.
func (f *failure) Error() string { return f.Text }

// Unwrap returns the error that it was, nil if that is not told apart.
func (f *failure) Unwrap() error { return failures[f.Kind] }

// err returns why what was asked was not done, as an error.
func (a *answer) err() error {
	if a.Failure == nil {
		return nil
	}
	return a.Failure
}

// maxQuestion is the longest question in bytes, since brokers keep some thousand.
const maxQuestion = 256 << 10

// ask asks all hubs, and returns their answers, beside an error those that there are. A
// hub that shares its record with
// nobody answers itself.
func (h *Hub) ask(ctx context.Context, q *question) ([]answer, error) {
	shared, ok := h.broker.(SharedBroker)
	if !ok {
		return []answer{h.answer(ctx, q)}, nil
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("write a question: %w", err)
	}
	if len(body) > maxQuestion {
		return nil, fmt.Errorf("%w: it is too long to be put to other nodes", ErrChange)
	}
	if err := h.waitReady(ctx); err != nil {
		return nil, err
	}
	texts, err := shared.Ask(ctx, body)
	if err != nil {
		err = fmt.Errorf("ask the other nodes: %w", err)
	}
	answers := make([]answer, len(texts))
	for i, text := range texts {
		if failed := json.Unmarshal(text, &answers[i]); failed != nil {
			return nil, fmt.Errorf("%w: the answer of another node cannot be read: %w", ErrUnavailable, failed)
		}
	}
	return answers, err
}

// askOwner asks for what can be done by the hub that has a connection alone. The
// error is [ErrNoConnection] if none has it.
func (h *Hub) askOwner(ctx context.Context, q *question) (answer, error) {
	answers, err := h.ask(ctx, q)
	if err != nil {
		return answer{}, err
	}
	err = ErrNoConnection
	for _, a := range answers {
		switch failed := a.err(); {
		case failed == nil:
			return a, nil
		case !errors.Is(failed, ErrNoConnection):
			err = failed
		}
	}
	return answer{}, err
}
