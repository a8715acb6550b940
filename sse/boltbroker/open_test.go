package boltbroker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// wantError expects an error that says all of that.
func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want %q", err, w)
		}
	}
}

// A record that is open is refused, and goes on as it was; when it is closed,
// it can be opened.
func TestLockedByThisProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // waits for the lock in no time
		b := open(t, file(t), Options{})
		publish(t, b, "one")
		_, err := Open(b.path, Options{})
		wantError(t, err, b.path, "locked", "another hub", "name another file")
		publish(t, b, "two")
		if got := stored(t, reopen(t, b, Options{})); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("got %q", got)
		}
	})
}

func init() {
	children["hold"] = func(path string) error {
		b, err := Open(path, Options{})
		if err != nil {
			return err
		}
		fmt.Println("open")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has had enough
		return b.Close()
	}
}

// A record that another process has open is refused until that process ends.
func TestLockedByAnotherProcess(t *testing.T) {
	t.Parallel() // it waits
	path := file(t)
	child := exec.Command(os.Args[0], path)
	child.Env = append(os.Environ(), childVariable+"=hold")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 4)
	if _, err := io.ReadFull(out, said); err != nil || string(said) != "open" {
		t.Fatalf("%q, %v", said, err)
	}
	_, err = Open(path, Options{})
	wantError(t, err, path, "locked", "another process")
	if err := errors.Join(in.Close(), child.Wait()); err != nil {
		t.Fatal(err)
	}
	publish(t, open(t, path, Options{}), "one")
}

// Of those who open a new record at once, one gets it, and the others are told
// that it is locked, not that it is damaged, even while it is being written to.
func TestOpenedAtOnce(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new", "record.db")
			var opened, refused int
			var mu sync.Mutex
			var openers sync.WaitGroup
			for range 4 {
				openers.Go(func() {
					b, err := Open(path, Options{})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						refused++
						wantError(t, err, path, "locked")
						return
					}
					opened++
					for i := range 20 {
						publish(t, b, fmt.Sprint(i))
					}
					t.Cleanup(func() { _ = b.Close() })
				})
			}
			openers.Wait()
			if opened != 1 || refused != 3 {
				t.Fatalf("%d opened it", opened)
			}
			left, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(left) != 1 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// foreign makes a bbolt file of another program's.
func foreign(fill func(*bbolt.Tx) error) func(path string) error {
	return func(path string) error {
		db, err := bbolt.Open(path, fileMode, nil)
		if err != nil {
			return err
		}
		return errors.Join(db.Update(fill), db.Close())
	}
}

// bucket makes a bucket with a key in it.
func bucket(tx *bbolt.Tx, name string) error {
	b, err := tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return err
	}
	return b.Put([]byte("key"), []byte("value"))
}

func text(size int) func(path string) error {
	return func(path string) error {
		return os.WriteFile(path, []byte(strings.Repeat("some text\n", size/10)), fileMode)
	}
}

// A file that is not a record is refused with a reason and an advice, and left
// as it is.
func TestNotARecord(t *testing.T) {
	isForeign := []string{"not a record of this program", "name another file"}
	tests := []struct {
		name string
		make func(path string) error
		want []string
	}{
		{"empty", text(0), []string{"it is empty", "remove it"}},
		{"short text", text(10), isForeign},
		{"long text", text(100_000), isForeign},
		{"a directory", func(path string) error { return os.Mkdir(path, dirMode) }, isForeign},
		{"bbolt without buckets", foreign(func(*bbolt.Tx) error { return nil }), isForeign},
		{"another's bucket", foreign(func(tx *bbolt.Tx) error { return bucket(tx, "users") }), isForeign},
		{"a bucket of the same name", foreign(func(tx *bbolt.Tx) error {
			return errors.Join(bucket(tx, "meta"), bucket(tx, "record"))
		}), isForeign},
		{"nested buckets", foreign(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("v1"))
			if err != nil {
				return err
			}
			_, err = b.CreateBucket([]byte("inner"))
			return errors.Join(err, bucket(tx, "record"))
		}), isForeign},
		{"a large one", foreign(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("users"))
			for i := range 1000 {
				err = errors.Join(err, b.Put(keyOf(uint64(i)), make([]byte, 100)))
			}
			return err
		}), isForeign},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := file(t)
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err := Open(path, Options{})
			wantError(t, err, append(test.want, path)...)
			if after, _ := os.ReadFile(path); !slices.Equal(before, after) {
				t.Error("the file was written to")
			}
		})
	}
}

// change changes a record that is closed.
func change(t *testing.T, path string, do func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, fileMode, nil)
	if err == nil {
		err = errors.Join(db.Update(do), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A record that lacks something, or has what cannot be, is refused: there is no
// start with less than was kept.
func TestRecordThatLacksSomething(t *testing.T) {
	record := func(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket(bucketRecord) }
	damaged := "restore it from a backup"
	tests := []struct {
		name   string
		change func(*bbolt.Tx) error
		want   []string
	}{
		{"newer format", func(tx *bbolt.Tx) error {
			// Of a newer version, nothing else need be the same.
			return errors.Join(putMeta(tx, keyFormat, []byte(formatName+"2")), record(tx).Put([]byte("k"), nil), bucket(tx, "ids"))
		}, []string{"newer version", `"caddy-sse record 2"`, "install that version again"}},
		{"record", func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketRecord) }, []string{"bucket record is missing", damaged}},
		{"ids", func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketIDs) }, []string{"bucket ids is missing", damaged}},
		{"one bucket too many", func(tx *bbolt.Tx) error { return bucket(tx, "users") }, []string{"not a record"}},
		{"epoch", func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyEpoch) }, []string{"epoch is missing", damaged}},
		{"head", func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyHead) }, []string{"head is missing", damaged}},
		{"half a head", func(tx *bbolt.Tx) error { return putMeta(tx, keyHead, keyOf(0)) }, []string{"head cannot be read", damaged}},
		{"head without its checksum", func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyHead, make([]byte, 16)) }, []string{"checksum", damaged}},
		{"another head", func(tx *bbolt.Tx) error {
			return putMeta(tx, keyHead, appendHead(nil, 2, time.Unix(0, 0)))
		}, []string{"entry 1 is there although", damaged}},
		{"the first entry", func(tx *bbolt.Tx) error { return record(tx).Delete(keyOf(1)) }, []string{"entry 2 follows 0", damaged}},
		{"an entry", func(tx *bbolt.Tx) error { return record(tx).Delete(keyOf(2)) }, []string{"entry 3 follows 1", damaged}},
		{"the newest entry", func(tx *bbolt.Tx) error { return record(tx).Delete(keyOf(3)) }, []string{"newest entry should be 3", damaged}},
		{"all entries", func(tx *bbolt.Tx) error {
			return errors.Join(record(tx).Delete(keyOf(1)), record(tx).Delete(keyOf(2)), record(tx).Delete(keyOf(3)))
		}, []string{"newest entry should be 3", damaged}},
		{"an id", func(tx *bbolt.Tx) error { return tx.Bucket(bucketIDs).Delete(keyOf(3)) }, []string{"should hold 2 ids", damaged}},
		{"a strange key", func(tx *bbolt.Tx) error { return record(tx).Put([]byte("k"), nil) }, []string{"instead of 8", damaged}},
		{"time", func(tx *bbolt.Tx) error {
			e, err := decodeEntry("", keyOf(3), record(tx).Get(keyOf(3)))
			e.Time = e.Time.AddDate(-1, 0, 0)
			return errors.Join(err, record(tx).Put(keyOf(3), appendEntry(nil, keyOf(3), &e)))
		}, []string{"entry 3 is older", damaged}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := open(t, file(t), Options{})
			publish(t, b, "1")
			publishEvents(t, b, withID("x", "2"), withID("y", "3"))
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			change(t, b.path, test.change)
			_, err := Open(b.path, Options{})
			wantError(t, err, append(test.want, b.path)...)
		})
	}
}

// A new record is the owner's alone, as is the directory that is made for it.
func TestNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "record.db")
	open(t, path, Options{})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		// Windows has no such modes.
		if mode := info.Mode().Perm(); mode != want && runtime.GOOS != "windows" {
			t.Errorf("%s: %v", name, mode)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

// What a crash leaves behind that strikes while a record is created does no harm.
func TestCrashWhileCreating(t *testing.T) {
	path := file(t)
	for _, content := range []string{"", "half a page"} {
		left, err := os.CreateTemp(filepath.Dir(path), "record.db.new-*")
		if err != nil {
			t.Fatal(err)
		}
		_, err = left.WriteString(content)
		if err := errors.Join(err, left.Close()); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, path, Options{})
	publish(t, b, "one")
	if got := stored(t, reopen(t, b, Options{})); !slices.Equal(got, []string{"one"}) {
		t.Errorf("got %q", got)
	}
}

// A path that goes through a file is no place for a record.
func TestNoDirectory(t *testing.T) {
	path := filepath.Join(os.Args[0], "record.db")
	_, err := Open(path, Options{})
	wantError(t, err, path, "not a directory")
}

// On a file system without links, a record that another process had created in
// the same moment was replaced, and what was acknowledged there was lost.
func TestPlaceWithoutLinks(t *testing.T) {
	noLinks := func(string, string) error { return errors.ErrUnsupported }
	dir := t.TempDir()
	path := filepath.Join(dir, "record.db")
	for _, name := range []string{"first", "second"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := place(filepath.Join(dir, "first"), path, noLinks); err != nil {
		t.Errorf("the first: %v", err)
	}
	if err := place(filepath.Join(dir, "second"), path, noLinks); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second: %v, want %v", err, fs.ErrExist)
	}
	if got, err := os.ReadFile(path); string(got) != "first" || err != nil {
		t.Errorf("the record is %q, %v", got, err)
	}
}
