//go:build unix && !solaris && !illumos && !aix

package boltbroker

import (
	"os"
	"syscall"
)

// unlock gives back the lock of bbolt, which the mapping of the file would hold
// even when the file is closed.
func unlock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
}
