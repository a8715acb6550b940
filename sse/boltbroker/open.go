package boltbroker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// lockTimeout is how long Open waits for somebody else to close the file,
	// as a former process may be about to.
	lockTimeout = 2 * time.Second
	fileMode    = 0o600
	dirMode     = 0o700
)

// What the file says of itself.
const (
	formatName    = "caddy-sse record "
	formatVersion = '1'
)

// Why a file cannot be opened. Each is wrapped with the name of the file and
// what to do.
var (
	errLocked  = errors.New("another process, or another hub of this one, has it open")
	errEmpty   = errors.New("it is empty")
	errForeign = errors.New("it is not a record of this program")
	errNewer   = errors.New("it was written by a newer version of this program")
)

// Open opens the record in a file, and creates the file, and its directory, if
// there is none. It reads the whole file, which takes about a second a gigabyte.
//
// The errors name the file and say what to do: it is locked by somebody else;
// it is not a record, or that of a newer version; it is damaged. A file that is
// there is never overwritten or begun anew. The caller closes the broker.
func Open(path string, options Options) (*Broker, error) {
	if err := ensure(path); err != nil {
		return nil, fmt.Errorf("create the record %s: %w", path, err)
	}
	if err := inspect(path); err != nil {
		return nil, explain(path, err)
	}
	var file *os.File
	openFile := func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	db, err := openBolt(path, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoStatistics: true, OpenFile: openFile})
	if err != nil {
		return nil, explain(path, err)
	}
	found, err := load(path) // again, now that nobody else can write to it
	if err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	b := newBroker(path, db, found, options)
	b.file = file
	b.announce(found)
	b.running.Go(b.commits)
	b.running.Go(b.trims)
	b.wakeTrimming()
	return b, nil
}

// announce tells an operator which record this is. If it is a new one where
// there was another, because a volume is not mounted, that is where it shows.
func (b *Broker) announce(found *contents) {
	message := "opened the record"
	if found.head == 0 {
		message = "opened a record that has no events yet"
	}
	b.options.Logger.Info(message, slog.String("file", b.path), slog.String("epoch", found.epoch),
		slog.Uint64("oldest", found.oldest+1), slog.Uint64("newest", found.head))
}

func newBroker(path string, db *bbolt.DB, found *contents, options Options) *Broker {
	head := sse.Position{Epoch: found.epoch, Seq: found.head}
	b := &Broker{
		db: db, path: path, pageSize: db.Info().PageSize, epoch: found.epoch,
		requests: make(chan *request),
		trimming: make(chan struct{}, 1),
		closing:  make(chan struct{}),
		options:  options.withDefaults(),
		ledger:   sse.NewLedger(head, found.newest),
		index:    found.index,
		oldest:   found.oldest,
		since:    found.since,
		bytes:    found.bytes,
		tails:    make(map[*tail]struct{}),
	}
	b.close = sync.OnceValue(b.shut)
	for i := range found.ends {
		b.ledger.RestoreEnds(&found.ends[i])
	}
	for _, r := range found.repeats {
		b.ledger.Restore(r)
	}
	return b
}

// inspect verifies a file before bbolt opens it for writing, since bbolt trusts
// what it opens. Until then a reader's lock keeps writers away. To take that,
// bbolt looks at nothing but the meta pages; why it cannot, load says better.
func inspect(path string) (err error) {
	db, err := openBolt(path, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, errLocked) {
		return err
	}
	if err == nil {
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	_, err = load(path)
	return err
}

func openBolt(path string, options *bbolt.Options) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, fileMode, options)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errLocked
	}
	return db, err
}

// explain says which file cannot be opened, and what to do.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open the record %s: %w", path, err)
	case errors.Is(err, errLocked):
		return fmt.Errorf("the record %s is locked: %w; stop that, or name another file", path, err)
	case errors.Is(err, errEmpty):
		return fmt.Errorf("the record %s cannot be opened: %w; remove it to begin a new record", path, err)
	case errors.Is(err, errForeign):
		return fmt.Errorf("the record %s cannot be opened: %w; name another file", path, err)
	case errors.Is(err, errNewer):
		return fmt.Errorf("the record %s cannot be opened: %w; install that version again, or name another file", path, err)
	}
	return fmt.Errorf("the record %s is damaged: %w; restore it from a backup, or move it away to begin a new record, upon which every subscriber is told that events are missing", path, err)
}

// ensure creates the file if there is none. It comes into being as a whole, so
// that a crash leaves no half of a record, and never in the place of a file
// that somebody else creates at the same time.
func ensure(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	name := temporary.Name()
	defer func() { _ = os.Remove(name) }()
	if err := errors.Join(temporary.Close(), create(name)); err != nil {
		return err
	}
	if err := place(name, path, os.Link); errors.Is(err, fs.ErrExist) {
		return nil // somebody else was first
	} else if err != nil {
		return err
	}
	return syncDir(dir)
}

// place gives a file the name of the record, unless that is taken. Where the file
// system has no links, an empty file reserves the name first: if the process ends
// just then, the next start says what to do about it.
func place(name, path string, link func(name, path string) error) error {
	err := link(name, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	reserved, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	return errors.Join(reserved.Close(), os.Rename(name, path))
}

// makeDir creates a directory and those above it, as durably as the file.
func makeDir(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(path)
	if err := makeDir(above); err != nil {
		return err
	}
	if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(above)
}

// create makes an empty record of an empty file.
func create(path string) error {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketRecord, bucketIDs} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			putMeta(tx, keyFormat, append([]byte(formatName), formatVersion)),
			putMeta(tx, keyEpoch, []byte(sse.NewEpoch())),
			putMeta(tx, keyHead, appendHead(nil, 0, time.Unix(0, 0))),
		)
	})
	return errors.Join(err, db.Close())
}

// syncDir makes the name of a new file as durable as the file. Windows has no
// such thing.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
