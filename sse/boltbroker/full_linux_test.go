package boltbroker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A disk that is full refuses publishers with the reason, and health says so
// for as long as it is. When there is room again, publishing goes on by itself,
// and all that was acknowledged is there, and nothing else. The disk is full for
// a process of its own, whose files may not grow.
func TestFullDisk(t *testing.T) {
	t.Parallel() // it waits
	child := exec.Command(os.Args[0], file(t))
	child.Env = append(os.Environ(), childVariable+"=full")
	out, err := child.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func init() { children["full"] = fillDisk }

func fillDisk(path string) error {
	b, err := Open(path, Options{})
	if err != nil {
		return err
	}
	var acked []string
	publish := func(data string) error {
		_, err := b.Publish(context.Background(), []sse.Event{{Channels: []string{"a"}, Data: data}})
		if err == nil {
			acked = append(acked, data)
		}
		return err
	}
	for i := range 50 {
		if err := publish(fmt.Sprint(i)); err != nil {
			return err
		}
	}
	if err := limitFiles(1 << 20); err != nil {
		return err
	}
	full := error(nil)
	for i := 0; full == nil; i++ {
		if i > 1000 {
			return errors.New("the disk never is full")
		}
		full = publish(fmt.Sprint("until full ", i) + strings.Repeat(".", 20_000))
	}
	fmt.Println("full:", full)
	if !errors.Is(full, sse.ErrUnavailable) || !strings.Contains(full.Error(), "file too large") {
		return full
	}
	if err := whileFull(b, publish); err != nil {
		return err
	}
	if err := limitFiles(1 << 30); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); b.Health() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("health does not recover")
		}
	}
	for i := range 50 {
		if err := publish(fmt.Sprint("after ", i) + strings.Repeat(".", 20_000)); err != nil {
			return err
		}
	}
	return lookAt(b, acked)
}

// whileFull sees to it that health stays bad while probes are made.
func whileFull(b *Broker, publish func(string) error) error {
	for range 300 {
		if b.Health() == nil {
			return errors.New("health is good although the disk is full")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i := range 20 {
		if err := publish(fmt.Sprint("while full ", i) + strings.Repeat(".", 20_000)); !errors.Is(err, sse.ErrUnavailable) {
			return fmt.Errorf("while the disk is full: %w", err)
		}
	}
	return nil
}

// lookAt compares a record with what was acknowledged, before and after it is
// opened again.
func lookAt(b *Broker, acked []string) error {
	for range 2 {
		page, err := b.Read(context.Background(), sse.Position{}, []string{"*"}, 1<<30)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range page.Entries {
			got = append(got, e.Event.Data)
		}
		if !slices.Equal(got, acked) {
			return fmt.Errorf("%d are kept, %d were acknowledged", len(got), len(acked))
		}
		if err := b.Close(); err != nil {
			return err
		}
		if b, err = Open(b.path, Options{}); err != nil {
			return err
		}
	}
	fmt.Println(len(acked), "are kept")
	return b.Close()
}

// limitFiles sets how large files may become. The signal that tells of it is
// ignored by Go.
func limitFiles(size uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(size, limit.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}
