package sse

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// reachWait is how long a client waits for a hub that does not have yet what the
	// client had from another. Then it had better go elsewhere.
	reachWait = time.Second
	// reachEvery is how often it is looked whether the hub has it. That it is not told
	// keeps those who wait, who are few, out of the way of each event.
	reachEvery = 5 * time.Millisecond
)

var errBehind = fmt.Errorf("%w: this hub has not come to where the client was", ErrUnavailable)

// reach returns when the hub has come to where a client begins. One that comes from
// another hub may be ahead of this one, which a reset would set back to what it had before.
// Whether it is, or presents what never was a position of the record, only the record
// knows.
func (h *Hub) reach(ctx context.Context, start Start) error {
	if _, shared := h.broker.(SharedBroker); !shared || h.reached(start) {
		return nil
	}
	switch _, err := h.broker.Count(ctx, start.after, []string{"*"}, 1); {
	case errors.Is(err, ErrGone):
		return nil // there is a reset
	case err != nil:
		return fmt.Errorf("ask whether the client is ahead: %w", err)
	case start.after.Epoch != h.epoch:
		return errBehind // and will be closed when it finds out
	}
	late := time.NewTimer(reachWait)
	defer late.Stop()
	look := time.NewTicker(reachEvery)
	defer look.Stop()
	for !h.reached(start) {
		select {
		case <-look.C:
		case <-late.C:
			return errBehind
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (h *Hub) reached(start Start) bool {
	return start.kind != startAfter || (start.after.Epoch == h.epoch && start.after.Seq <= h.head.Load())
}

// goneOrBehind returns an error of the record, but another one for what is gone because the
// record has begun anew and this hub has not found out yet: it will be closed, and its clients
// are told then what they missed, and why.
func (h *Hub) goneOrBehind(ctx context.Context, err error) error {
	if _, shared := h.broker.(SharedBroker); !shared || !errors.Is(err, ErrGone) {
		return err
	}
	here := Position{Epoch: h.epoch, Seq: h.head.Load()}
	if _, now := h.broker.Count(ctx, here, []string{"*"}, 1); errors.Is(now, ErrGone) {
		return errBehind
	}
	return err
}
