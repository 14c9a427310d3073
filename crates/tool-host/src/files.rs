//! `wasi:filesystem` for a tool: wasmtime's, with three functions of our own. Opening a file counts the files that are
//! open. A directory is read as the tool asks for its entries: wasmtime's way reads all of it first, into memory that
//! no limit counts, and asks the kernel once more for each entry.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types as fs};

use super::resources::Entries;
use super::state::CallState;

/// The linker finds every 0.2 version under the version of wasmtime's bindings.
const INTERFACE: &str = "wasi:filesystem/types@0.2.12";

/// Adds `wasi:filesystem` to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<_, WasiFilesystem>(linker, CallState::filesystem)?;
    fs::add_to_linker::<_, WasiFilesystem>(linker, CallState::filesystem)?;
    linker.allow_shadowing(true);
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap_async("[method]descriptor.open-at", open_at)?;
    interface.resource(
        "directory-entry-stream",
        ResourceType::host::<Entries>(),
        |mut store, rep| {
            store.data_mut().table.delete(Resource::<Entries>::new_own(rep))?;
            Ok(())
        },
    )?;
    interface.func_wrap("[method]descriptor.read-directory", read_directory)?;
    interface.func_wrap(
        "[method]directory-entry-stream.read-directory-entry",
        read_directory_entry,
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type OpenAt = (
    Resource<Descriptor>,
    fs::PathFlags,
    String,
    fs::OpenFlags,
    fs::DescriptorFlags,
);

/// What a function of the interface answers.
type Answer<T> = (Result<T, fs::ErrorCode>,);

fn open_at(
    mut store: StoreContextMut<'_, CallState>,
    (directory, path_flags, path, open_flags, flags): OpenAt,
) -> Box<dyn Future<Output = wasmtime::Result<Answer<Resource<Descriptor>>>> + Send + '_> {
    Box::new(async move {
        let state = store.data_mut();
        state.count_open_file()?;
        let mut files = state.filesystem();
        let opened = fs::HostDescriptor::open_at(&mut files, directory, path_flags, path, open_flags, flags).await;
        match opened {
            Ok(descriptor) => Ok((Ok(descriptor),)),
            Err(error) => Ok((Err(fs::Host::convert_error_code(&mut files, error)?),)),
        }
    })
}

fn read_directory(
    mut store: StoreContextMut<'_, CallState>,
    (directory,): (Resource<Descriptor>,),
) -> wasmtime::Result<Answer<Resource<Entries>>> {
    let state = store.data_mut();
    state.count_open_file()?;
    let Descriptor::Dir(directory) = state.table.get(&directory)? else {
        return Ok((Err(fs::ErrorCode::NotDirectory),));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(&directory.dir, ".", flags, Mode::empty()).and_then(Dir::new) {
        Ok(entries) => Ok((Ok(state.table.push(Entries(entries))?),)),
        Err(error) => Ok((Err(code(error)),)),
    }
}

fn read_directory_entry(
    mut store: StoreContextMut<'_, CallState>,
    (entries,): (Resource<Entries>,),
) -> wasmtime::Result<Answer<Option<fs::DirectoryEntry>>> {
    let Entries(entries) = store.data_mut().table.get_mut(&entries)?;
    loop {
        let entry = match entries.read() {
            None => return Ok((Ok(None),)),
            Some(Err(error)) => return Ok((Err(code(error)),)),
            Some(Ok(entry)) => entry,
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say; then it costs a call.
            FileType::Unknown => match entries.fd().and_then(|fd| statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                // Gone since.
                Err(Errno::NOENT) => continue,
                Err(error) => return Ok((Err(code(error)),)),
            },
            kind => kind,
        };
        let Ok(name) = name.to_str() else {
            return Ok((Err(fs::ErrorCode::IllegalByteSequence),));
        };
        return Ok((Ok(Some(fs::DirectoryEntry {
            type_: descriptor_type(kind),
            name: name.to_owned(),
        })),));
    }
}

fn descriptor_type(kind: FileType) -> fs::DescriptorType {
    match kind {
        FileType::RegularFile => fs::DescriptorType::RegularFile,
        FileType::Directory => fs::DescriptorType::Directory,
        FileType::Symlink => fs::DescriptorType::SymbolicLink,
        FileType::Fifo => fs::DescriptorType::Fifo,
        FileType::Socket => fs::DescriptorType::Socket,
        FileType::CharacterDevice => fs::DescriptorType::CharacterDevice,
        FileType::BlockDevice => fs::DescriptorType::BlockDevice,
        FileType::Unknown => fs::DescriptorType::Unknown,
    }
}

/// The error in the words of WASI; wasmtime has the table.
fn code(error: Errno) -> fs::ErrorCode {
    fs::ErrorCode::from(std::io::Error::from(error))
}
