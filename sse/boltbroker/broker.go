package boltbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-sse/caddy-sse/sse"
)

// Options are a broker's settings. The zero value is ready for use.
//
// Each of the bounds may be exceeded by a sixteenth, and for as long as giving
// up the oldest entries takes, which happens in the background.
type Options struct {
	// MaxEvents is how many events are kept, of all channels together. Zero
	// or less is 1,000,000.
	MaxEvents int
	// MaxAge is for how long events are kept. Zero or less is 24 hours.
	MaxAge time.Duration
	// MaxBytes bounds the bytes of all kept events together, as stored. The
	// file is some tenths larger. Zero or less is 1 GiB.
	MaxBytes int64
	// Logger is told what an operator should know. Nil is silent.
	Logger *slog.Logger
}

// Defaults of [Options].
const (
	DefaultMaxEvents = 1_000_000
	DefaultMaxAge    = 24 * time.Hour
	DefaultMaxBytes  = 1 << 30
)

func (o Options) withDefaults() Options {
	o.MaxEvents = cmp.Or(max(o.MaxEvents, 0), DefaultMaxEvents)
	o.MaxAge = cmp.Or(max(o.MaxAge, 0), DefaultMaxAge)
	o.MaxBytes = cmp.Or(max(o.MaxBytes, 0), DefaultMaxBytes)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Names of the buckets and of the keys in meta.
var (
	bucketMeta   = []byte("meta")
	bucketRecord = []byte("record")
	bucketIDs    = []byte("ids")

	keyFormat = []byte("format")
	keyEpoch  = []byte("epoch")
	keyHead   = []byte("head")
	keyProbe  = []byte("probe")
)

// A Broker keeps a record in a file. It implements [sse.Broker]. Create it with
// [Open].
type Broker struct {
	db       *bbolt.DB
	file     *os.File // which db writes to
	path     string
	pageSize int
	epoch    string
	requests chan *request
	trimming chan struct{} // wakes the goroutine that trims
	closing  chan struct{} // closed by Close
	running  sync.WaitGroup
	close    func() error // closes once
	biting   *bite        // that is not done with, of the goroutine that trims
	// wrap lets a test count the writing transactions, or have them fail.
	wrap func(update func() error) error

	writing   sync.Mutex // held over a writing transaction
	doubt     bool       // guarded by writing: the last one failed
	leftovers bool       // guarded by writing: there may be some of a commit that failed
	beginning sync.Mutex // held while a transaction begins
	damage    atomic.Pointer[error]

	mu      sync.Mutex // guards what follows, and serialises deliver
	options Options
	ledger  *sse.Ledger
	index   index
	oldest  uint64    // everything behind it is kept
	since   time.Time // time of the oldest entry
	bytes   int64     // of all entries
	tails   map[*tail]struct{}
	failure error // why nothing can be written now
	missing int   // about how many bytes could not be
	closed  bool
}

type tail struct{ deliver func([]sse.Entry) }

// SetOptions changes the settings of an open broker. What they do not keep is
// given up soon.
func (b *Broker) SetOptions(options Options) {
	b.mu.Lock()
	b.options = options.withDefaults()
	b.mu.Unlock()
	b.wakeTrimming()
}

// State implements [sse.Broker].
func (b *Broker) State(context.Context) (sse.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return sse.State{}, sse.ErrClosed
	}
	return sse.State{
		Oldest: sse.Position{Epoch: b.epoch, Seq: b.oldest},
		Newest: b.ledger.Head(),
		Ended:  b.ledger.Ended(),
	}, nil
}

func (b *Broker) at(seq uint64) sse.Position { return sse.Position{Epoch: b.epoch, Seq: seq} }

// Health implements [sse.Broker].
func (b *Broker) Health() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return sse.ErrClosed
	}
	if damage := b.damage.Load(); damage != nil {
		return *damage
	}
	return b.failure
}

// Close implements [sse.Broker]. It waits for a commit that is under way, and
// for tails to end. Its error is that of closing the file, in which case all
// that was acknowledged is in it all the same.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shut() error {
	b.mu.Lock()
	b.closed = true
	close(b.closing)
	b.mu.Unlock()
	b.running.Wait()
	if b.damage.Load() != nil {
		return errors.Join(unlock(b.file), b.file.Close()) // bbolt might wait for itself
	}
	b.writing.Lock()
	leftovers := b.leftovers
	b.writing.Unlock()
	if leftovers {
		// If it does not work, what publishers were told is not kept may be
		// there when the file is opened again. They know of that: see
		// Publish.
		_ = b.takeBack(dropProbe)
	}
	return b.db.Close()
}

// view runs a reading transaction.
func (b *Broker) view(read func(*bbolt.Tx) error) error {
	err := b.guard(func(begun func()) error {
		return b.db.View(func(tx *bbolt.Tx) error {
			begun()
			return b.rescue(func() error { return read(tx) })
		})
	})
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return sse.ErrClosed
	}
	return err
}

// commitLocked runs a transaction that begins with taking back what is left of a
// commit that failed. If it returns an error, the next one has to. The lock
// writing is held.
func (b *Broker) commitLocked(write func(*bbolt.Tx) error) error {
	err := b.updateLocked(write)
	b.leftovers = err != nil
	return err
}

// takeBack deletes what stands behind the head, and does something more.
func (b *Broker) takeBack(and func(*bbolt.Tx) error) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.takeBackLocked(and)
}

func (b *Broker) takeBackLocked(and func(*bbolt.Tx) error) error {
	b.mu.Lock()
	head := b.ledger.Head() // that of the file, unless a commit waits to be settled
	b.mu.Unlock()
	return b.commitLocked(func(tx *bbolt.Tx) error {
		return errors.Join(b.write(tx, head, nil), and(tx))
	})
}

// tidy runs a transaction that deletes what is no longer kept. What is left of a
// commit that failed would be made durable by it, and is taken back first: no
// commit has succeeded since, so none waits to be settled.
func (b *Broker) tidy(remove func(*bbolt.Tx) error) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.leftovers {
		return b.takeBackLocked(remove)
	}
	return b.updateLocked(remove)
}

// updateLocked runs a writing transaction. The lock writing is held.
func (b *Broker) updateLocked(write func(*bbolt.Tx) error) error {
	if b.doubt && b.damage.Load() == nil {
		if err := b.rewriteMetas(); err != nil {
			return err
		}
	}
	update := func() error {
		return b.guard(func(begun func()) error {
			return b.db.Update(func(tx *bbolt.Tx) error {
				begun()
				return b.rescue(func() error { return write(tx) })
			})
		})
	}
	var err error
	if b.wrap != nil {
		err = b.wrap(update)
	} else {
		err = update()
	}
	b.doubt = err != nil
	return err
}

// rewriteMetas makes the disk agree with memory on which transaction is in
// force. If the sync of a new meta page fails, memory has it and the disk may
// not, nor will it get it: what could not be synced counts as clean. The next
// transaction would take the pages that are free by it, which the meta page on
// the disk may still need, and a loss of power would find them overwritten.
func (b *Broker) rewriteMetas() error {
	metas := make([]byte, 2*b.pageSize)
	if _, err := b.file.ReadAt(metas, 0); err != nil {
		return err
	}
	if _, err := b.file.WriteAt(metas, 0); err != nil {
		return err
	}
	return b.file.Sync()
}

// guard runs a transaction, and turns the panics of bbolt into errors. It has
// them for what it holds to be impossible, and reading beyond the end of a file
// that something else cut short is a fault of the memory.
//
// One that strikes while a transaction begins, or while it is committed, leaves
// locks of bbolt's behind, for which everybody would wait forever, also those that
// end. So transactions begin one at a time, only where there is what they begin with,
// and after such a panic none does.
func (b *Broker) guard(transact func(begun func()) error) (err error) {
	b.beginning.Lock()
	begun := sync.OnceFunc(b.beginning.Unlock)
	defer begun()
	if damage := b.damage.Load(); damage != nil {
		return *damage
	}
	if info, err := b.file.Stat(); err == nil && info.Size() < 2*int64(b.pageSize) {
		err := fmt.Errorf("%s was damaged while it was open, and is of no use until it is opened again: it was cut short", b.path)
		b.damage.Store(&err)
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s was damaged while it was open, and is of no use until it is opened again: %v", b.path, p)
			b.damage.Store(&err)
		}
	}()
	return transact(begun)
}

// rescue turns a panic within a transaction into an error, with which the
// transaction ends as with any other.
func (b *Broker) rescue(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s was damaged while it was open: %v", b.path, p)
		}
	}()
	return do()
}

var _ sse.Broker = (*Broker)(nil)
