package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Volumes are the volumes of a disk, joined. Owned by one goroutine.
type Volumes struct {
	io.Reader // from the first byte to the last
	Length    int64
	files     []*os.File
}

// OpenVolumes opens path.001, path.002 and so on up to the last that there is. All but the last have one length. The
// caller closes.
func OpenVolumes(path string) (*Volumes, error) {
	v := &Volumes{}
	var readers []io.Reader
	for number, length := 1, int64(0); number <= MaxVolumes; number++ {
		f, err := os.Open(VolumeName(path, number))
		if number > 1 && errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, v.Close())
		}
		v.files = append(v.files, f)
		st, err := f.Stat()
		if err == nil && number > 2 && v.Length != int64(number-1)*length {
			err = fmt.Errorf("volume %d has another length than those before; is one cut off?", number-1)
		}
		if err != nil {
			return nil, errors.Join(err, v.Close())
		}
		if number == 1 {
			length = st.Size()
		}
		v.Length += st.Size()
		if st.Size() > length {
			return nil, errors.Join(fmt.Errorf("%s is longer than the first volume", f.Name()), v.Close())
		}
		readers = append(readers, f)
	}
	for number := len(v.files) + 2; number <= MaxVolumes; number++ {
		if _, err := os.Stat(VolumeName(path, number)); err == nil {
			return nil, errors.Join(fmt.Errorf("%s is there, %s is not", VolumeName(path, number), VolumeName(path, len(v.files)+1)), v.Close())
		}
	}
	v.Reader = io.MultiReader(readers...)
	return v, nil
}

// Close closes the files.
func (v *Volumes) Close() error {
	var errs []error
	for _, f := range v.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
