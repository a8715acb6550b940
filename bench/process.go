//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns what a process has used of all cores, to the nanosecond:
// what /proc/<pid>/stat says is rounded to 10 ms. It is zero for a process that
// is gone.
func cpuTime(pid int) time.Duration {
	var t unix.Timespec
	// clock_getcpuclockid(3) makes the id like this: CPUCLOCK_SCHED of the
	// whole process.
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// processes returns a process and all that it has started.
func processes(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread is gone
		}
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, processes(n)...)
			}
		}
	}
	return all
}

func kill(pids []int) {
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
	}
}

// cpu returns what the server's processes have used of all cores.
func (s *server) cpu() (used time.Duration) {
	for _, pid := range processes(s.pid) {
		used += cpuTime(pid)
	}
	return used
}

// settle waits until the server is idle, so that neither what went before nor
// what it still does is counted in the wrong place.
func (s *server) settle(ctx context.Context) error {
	const (
		period = 50 * time.Millisecond
		idle   = period / 50
	)
	for range 100 {
		before := s.cpu()
		select {
		case <-time.After(period):
		case <-s.exited:
			return fmt.Errorf("%s has exited\n%s", s.engine, s.log.Bytes())
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.cpu()-before < idle {
			break
		}
	}
	return nil
}

// memory returns how many bytes the server's processes need after a garbage
// collection: their resident memory that belongs to no file (of a program's
// file more is resident the more of it was used), shared memory included,
// without what their heap has free and would give back by itself after some
// minutes.
func (s *server) memory(ctx context.Context) (int, error) {
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	free, err := engines[s.engine].collect(s, ctx)
	if err != nil {
		return 0, err
	}
	bytes := -free
	for _, pid := range processes(s.pid) {
		kib, err := readNumbers(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		if _, ok := kib["Pss_Anon:"]; !ok {
			return 0, errors.New("this kernel does not tell what memory is no file's: /proc/<pid>/smaps_rollup lacks Pss_Anon")
		}
		bytes += (kib["Pss_Anon:"] + kib["Pss_Shmem:"]) << 10
	}
	return bytes, nil
}

// collectGo collects the garbage of a Go program that serves net/http/pprof.
func (s *server) collectGo(ctx context.Context) (free int, err error) {
	for range 3 { // pools are emptied by the second, stacks shrink by half in each
		heap, err := s.heap(ctx)
		if err != nil {
			return 0, err
		}
		free = heap["HeapIdle"] - heap["HeapReleased"]
	}
	return free, nil
}

// heap has the server collect garbage, and returns its runtime.MemStats.
func (s *server) heap(ctx context.Context) (map[string]int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.adminAt+"/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	stats := make(map[string]int)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		var name string
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "# %s = %d", &name, &n); err == nil {
			stats[name] = n
		}
	}
	if stats["HeapIdle"] == 0 {
		return nil, fmt.Errorf("%s does not tell of its heap: %s", s.engine, answer.Status)
	}
	return stats, nil
}

// readNumbers reads a file of lines that begin with a name and a number.
func readNumbers(path string) (map[string]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	numbers := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		var name string
		var n int
		if _, err := fmt.Sscan(line, &name, &n); err == nil {
			numbers[name] = n
		}
	}
	return numbers, nil
}
