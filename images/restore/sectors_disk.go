//go:build darwin || freebsd || windows

package restore

import "fmt"

// inSectors takes what a disk says of itself, and has whole sectors read and written.
func (d *File) inSectors(sector int, length int64) error {
	if sector <= 0 || sector&(sector-1) != 0 || sector > sectorsLength {
		return fmt.Errorf("sectors of %d bytes", sector)
	}
	d.SectorLength, d.Length = sector, length
	d.at = newSectors(d.f, sector, length)
	return nil
}
