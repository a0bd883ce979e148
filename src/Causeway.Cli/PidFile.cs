using System.Globalization;
using System.Text;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Cli;

/// <summary>
/// <c>SOCKET.pid</c>: holds the process id of the daemon on a socket, and a lock as long as that lives, so that no second one
/// starts there. A file that a killed daemon left is taken over.
/// </summary>
/// <remarks>
/// The file is removed in the end. Somebody else may have opened it before and get the lock of a file without a name then;
/// hence the comparison after locking.
/// </remarks>
internal sealed class PidFile : IDisposable
{
    private const uint OwnerOnly = 0b110_000_000;

    // Each turn needs another daemon that ended at the same moment (arbitrary, far more than that).
    private const int MaxTurns = 100;

    private readonly SafeFileHandle _file;
    private readonly string _path;

    private PidFile(SafeFileHandle file, string path)
    {
        _file = file;
        _path = path;
    }

    /// <summary>Creates and locks the file of a socket.</summary>
    /// <param name="socketPath">Where the socket will be.</param>
    /// <exception cref="StartupException">It cannot be done; most likely another daemon is there.</exception>
    public static PidFile Create(string socketPath)
    {
        string path = socketPath + ".pid";
        for (int turn = 0; turn < MaxTurns; turn++)
        {
            SafeFileHandle file = Open(path, socketPath);
            int descriptor = (int)file.DangerousGetHandle();
            SyscallResult locked = FileLocks.Flock(descriptor, FlockOperation.Exclusive);
            if (locked.IsError)
            {
                string owner = Read(file);
                file.Dispose();
                throw new StartupException(locked.Error == Errno.EAGAIN
                    ? $"another daemon{owner} is at the socket '{socketPath}' and holds '{path}'; end it or choose another path"
                    : $"'{path}' cannot be locked: {ErrnoException.Describe(locked.Error)}; choose a path on another file system");
            }

            if (IsAt(path, descriptor))
            {
                Write(file, path);
                return new PidFile(file, path);
            }

            file.Dispose();
        }

        throw new StartupException($"'{path}' is replaced all the time; find out by whom, or choose another path");
    }

    /// <summary>Removes the file, if it is still ours. Any thread may call it.</summary>
    public void Remove()
    {
        if (!_file.IsClosed && IsAt(_path, (int)_file.DangerousGetHandle()))
        {
            Files.Unlinkat(Files.WorkingDirectory, Terminated(_path), AtFlags.None);
        }
    }

    /// <summary>Removes the file and gives up the lock.</summary>
    public void Dispose()
    {
        Remove();
        _file.Dispose();
    }

    private static SafeFileHandle Open(string path, string socketPath)
    {
        SyscallResult result = Files.Openat(
            Files.WorkingDirectory,
            Terminated(path),
            OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.NoFollow | OpenFlags.CloseOnExec,
            OwnerOnly);
        if (result.IsError)
        {
            string? directory = Path.GetDirectoryName(socketPath);
            throw new StartupException(result.Error == Errno.ENOENT
                ? $"the socket '{socketPath}' cannot be created: there is no directory '{directory}'; create it or choose another path"
                : $"'{path}' cannot be created: {ErrnoException.Describe(result.Error)}; check the directory's permissions, or "
                    + "choose another path");
        }

        return new SafeFileHandle(result.Descriptor, ownsHandle: true);
    }

    private static bool IsAt(string path, int descriptor) =>
        !Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer ours).IsError
        && !Files.Statx(Files.WorkingDirectory, Terminated(path), AtFlags.NoFollow, StatxMask.Basic, out StatxBuffer there).IsError
        && (ours.Inode, ours.DeviceMajor, ours.DeviceMinor) == (there.Inode, there.DeviceMajor, there.DeviceMinor);

    // What an earlier daemon wrote goes first: its number may be longer.
    private static void Write(SafeFileHandle file, string path)
    {
        Files.Ftruncate((int)file.DangerousGetHandle(), 0).ThrowIfError($"empty '{path}'");
        string text = string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}\n");
        RandomAccess.Write(file, Encoding.ASCII.GetBytes(text), fileOffset: 0);
    }

    private static string Read(SafeFileHandle file)
    {
        Span<byte> text = stackalloc byte[16];
        int length = RandomAccess.Read(file, text, fileOffset: 0);
        return int.TryParse(Encoding.ASCII.GetString(text[..length]).Trim(), CultureInfo.InvariantCulture, out int process)
            ? $" (process {process})"
            : string.Empty;
    }

    private static byte[] Terminated(string path) => Encoding.UTF8.GetBytes(path + "\0");
}
