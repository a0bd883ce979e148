// Permission bits are Unix'; Causeway is for Linux alone.
#pragma warning disable CA1416

using System.Buffers;
using Causeway.Driver;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Cli.Client;

/// <summary><c>causeway cp</c> and <c>causeway cat</c>.</summary>
internal static class CopyCommand
{
    // The longest READ, and so many pieces under way at the same time (arbitrary: one is read while another is written).
    private const int PieceBytes = 1 << 20;
    private const int Pieces = 4;

    // rw-r--r-- and rwxr-xr-x, which the permissions of the source replace.
    private const UnixFileMode Permissions = (UnixFileMode)0xFFF;

    /// <summary>Writes files to standard output.</summary>
    public static async Task ConcatenateAsync(SharePath[] places, CancellationToken cancellationToken)
    {
        Stream output = Console.OpenStandardOutput();
        await using (output.ConfigureAwait(false))
        {
            foreach (SharePath place in places)
            {
                VirtioFsClient client = await ClientCommands.ConnectAsync(place, CacheMode.None, cancellationToken)
                    .ConfigureAwait(false);
                await using (client.ConfigureAwait(false))
                {
                    VirtioFsFile file = await client.OpenFileAsync(place.Path, null, cancellationToken).ConfigureAwait(false);
                    await using (file.ConfigureAwait(false))
                    {
                        await CopyAsync(
                            file.ReadAsync,
                            (bytes, _, cancellation) => output.WriteAsync(bytes, cancellation),
                            Order.InOrder,
                            _ => { },
                            cancellationToken).ConfigureAwait(false);
                    }
                }
            }
        }
    }

    /// <summary>Copies to the last place.</summary>
    public static async Task RunAsync(SharePath[] places, bool isRecursive, CancellationToken cancellationToken)
    {
        SharePath destination = places[^1];
        if (places.All(place => place.Socket is null))
        {
            throw new UsageException(
                "none of the places is SOCK:PATH; use cp(1) for files of this machine, or check that the daemon runs");
        }

        var clients = new ClientSet();
        await using (clients.ConfigureAwait(false))
        {
            bool isDirectory = await IsDirectoryAsync(clients, destination, cancellationToken).ConfigureAwait(false);
            if (places.Length > 2 && !isDirectory)
            {
                throw new UsageException($"'{destination}' is not a directory, so several sources cannot be copied there");
            }

            foreach (SharePath source in places[..^1])
            {
                string name = source.Path.TrimEnd('/');
                name = name[(name.LastIndexOf('/') + 1)..];
                SharePath target = isDirectory && name.Length > 0 ? destination.Below(name) : destination;
                await CopyAnyAsync(clients, (source, target), isRecursive, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Copies a stream of bytes in pieces, several at the same time.</summary>
    internal static async Task CopyAsync(
        Func<Memory<byte>, long, CancellationToken, ValueTask<int>> read,
        Func<ReadOnlyMemory<byte>, long, CancellationToken, ValueTask> write,
        Order order,
        Action<long> report,
        CancellationToken cancellationToken)
    {
        var pending = new Queue<Task<(byte[] Buffer, int Count)>>();
        long next = 0;
        long done = 0;
        bool isEnd = false;
        try
        {
            while (!isEnd || pending.Count > 0)
            {
                while (!isEnd && pending.Count < Pieces)
                {
                    pending.Enqueue(MoveAsync(next));
                    next += PieceBytes;
                }

                (byte[] buffer, int count) = await pending.Dequeue().ConfigureAwait(false);
                if (order == Order.InOrder && !isEnd)
                {
                    await write(buffer.AsMemory(0, count), done, cancellationToken).ConfigureAwait(false);
                }

                // A piece that is not full is the last one; those behind it are empty, unless the file is growing.
                done += isEnd ? 0 : count;
                isEnd |= count < PieceBytes;
                ArrayPool<byte>.Shared.Return(buffer);
                report(done);
            }
        }
        finally
        {
            // After an error: what is under way uses the files, which are about to be closed.
            foreach (Task<(byte[] Buffer, int Count)> rest in pending)
            {
                await ((Task)rest).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }

        async Task<(byte[] Buffer, int Count)> MoveAsync(long start)
        {
            byte[] buffer = ArrayPool<byte>.Shared.Rent(PieceBytes);
            int count = 0;
            while (count < PieceBytes)
            {
                int more = await read(buffer.AsMemory(count, PieceBytes - count), start + count, cancellationToken)
                    .ConfigureAwait(false);
                if (more == 0)
                {
                    break;
                }

                count += more;
            }

            if (order == Order.Any && count > 0)
            {
                await write(buffer.AsMemory(0, count), start, cancellationToken).ConfigureAwait(false);
            }

            return (buffer, count);
        }
    }

    private static async Task CopyAnyAsync(
        ClientSet clients, (SharePath From, SharePath To) places, bool isRecursive, CancellationToken cancellationToken)
    {
        if (!await IsDirectoryAsync(clients, places.From, cancellationToken).ConfigureAwait(false))
        {
            await CopyFileAsync(clients, places, cancellationToken).ConfigureAwait(false);
            return;
        }

        if (!isRecursive)
        {
            throw new UsageException($"'{places.From}' is a directory; say -r to copy it with all that is in it");
        }

        if (!await IsDirectoryAsync(clients, places.To, cancellationToken).ConfigureAwait(false))
        {
            await MakeDirectoryAsync(clients, places.To, cancellationToken).ConfigureAwait(false);
        }

        // Listed first, so that a copy into itself ends.
        List<(string Name, FileKind Kind)> items =
            await ListAsync(clients, places.From, cancellationToken).ConfigureAwait(false);
        foreach ((string name, FileKind kind) in items)
        {
            (SharePath From, SharePath To) below = (places.From.Below(name), places.To.Below(name));
            switch (kind)
            {
                case FileKind.File or FileKind.Directory:
                    await CopyAnyAsync(clients, below, isRecursive, cancellationToken).ConfigureAwait(false);
                    break;
                case FileKind.SymbolicLink:
                    await CopyLinkAsync(clients, below, cancellationToken).ConfigureAwait(false);
                    break;
                default:
                    Warn($"'{below.From}' is a {Display.Kind(kind)} and was left out");
                    break;
            }
        }
    }

    private static async Task CopyFileAsync(
        ClientSet clients, (SharePath From, SharePath To) places, CancellationToken cancellationToken)
    {
        using var source = await OpenFile.ForReadingAsync(clients, places.From, cancellationToken).ConfigureAwait(false);
        OpenFile destination = await OpenFile.ForWritingAsync(clients, places.To, source.Mode, cancellationToken)
            .ConfigureAwait(false);
        var progress = new CopyProgress();
        try
        {
            await CopyAsync(
                source.ReadAsync,
                destination.WriteAsync,
                Order.Any,
                done => progress.Report(Display.Name(places.From.Path), done, source.Length),
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            progress.End();
            await source.CloseAsync().ConfigureAwait(false);
            await destination.CloseAsync().ConfigureAwait(false);
            destination.Dispose();
        }
    }

    private static async Task CopyLinkAsync(
        ClientSet clients, (SharePath From, SharePath To) places, CancellationToken cancellationToken)
    {
        string target = places.From.Socket is null
            ? new FileInfo(places.From.Path).LinkTarget!
            : await (await clients.GetAsync(places.From, cancellationToken).ConfigureAwait(false))
                .ReadLinkAsync(places.From.Path, cancellationToken).ConfigureAwait(false);
        if (places.To.Socket is null)
        {
            File.CreateSymbolicLink(places.To.Path, target);
            return;
        }

        VirtioFsClient client = await clients.GetAsync(places.To, cancellationToken).ConfigureAwait(false);
        await client.CreateSymbolicLinkAsync(places.To.Path, target, cancellationToken).ConfigureAwait(false);
    }

    private static async Task<bool> IsDirectoryAsync(
        ClientSet clients, SharePath place, CancellationToken cancellationToken)
    {
        if (place.Socket is null)
        {
            return Directory.Exists(place.Path);
        }

        try
        {
            VirtioFsClient client = await clients.GetAsync(place, cancellationToken).ConfigureAwait(false);
            FileStatus status = await client.GetStatusAsync(place.Path, LinkHandling.Follow, cancellationToken)
                .ConfigureAwait(false);
            return status.Kind == FileKind.Directory;
        }
        catch (VirtioFsException exception) when (exception.Error == Errno.ENOENT)
        {
            return false;
        }
    }

    private static async Task MakeDirectoryAsync(
        ClientSet clients, SharePath place, CancellationToken cancellationToken)
    {
        if (place.Socket is null)
        {
            Directory.CreateDirectory(place.Path);
            return;
        }

        VirtioFsClient client = await clients.GetAsync(place, cancellationToken).ConfigureAwait(false);
        await client.CreateDirectoryAsync(place.Path, cancellationToken: cancellationToken).ConfigureAwait(false);
    }

    private static async Task<List<(string Name, FileKind Kind)>> ListAsync(
        ClientSet clients, SharePath place, CancellationToken cancellationToken)
    {
        var items = new List<(string Name, FileKind Kind)>();
        if (place.Socket is null)
        {
            foreach (FileSystemInfo item in new DirectoryInfo(place.Path).EnumerateFileSystemInfos())
            {
                items.Add((item.Name, item.LinkTarget is not null
                    ? FileKind.SymbolicLink
                    : item is DirectoryInfo ? FileKind.Directory : FileKind.File));
            }

            return items;
        }

        VirtioFsClient client = await clients.GetAsync(place, cancellationToken).ConfigureAwait(false);
        await foreach (DirectoryItem item in client.EnumerateAsync(place.Path, cancellationToken).ConfigureAwait(false))
        {
            items.Add((item.Name, item.Kind));
        }

        return items;
    }

    private static void Warn(string message) => Console.Error.WriteLine($"causeway: {message}");

    /// <summary>Whether pieces may be written in any order.</summary>
    internal enum Order
    {
        /// <summary>Each at its position.</summary>
        Any,

        /// <summary>One after the other.</summary>
        InOrder,
    }

    /// <summary>One client per share: a daemon has one front end at a time.</summary>
    private sealed class ClientSet : IAsyncDisposable
    {
        private readonly Dictionary<string, VirtioFsClient> _clients = new(StringComparer.Ordinal);

        public async ValueTask<VirtioFsClient> GetAsync(SharePath place, CancellationToken cancellationToken)
        {
            string socket = Path.GetFullPath(place.Socket!);
            if (!_clients.TryGetValue(socket, out VirtioFsClient? client))
            {
                client = await ClientCommands.ConnectAsync(place, CacheMode.None, cancellationToken).ConfigureAwait(false);
                _clients.Add(socket, client);
            }

            return client;
        }

        public async ValueTask DisposeAsync()
        {
            foreach (VirtioFsClient client in _clients.Values)
            {
                await client.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>A file of a share or of this machine.</summary>
    private sealed class OpenFile(VirtioFsFile? shared, SafeFileHandle? local) : IDisposable
    {
        public long Length { get; private init; }

        public UnixFileMode Mode { get; private init; }

        public static async ValueTask<OpenFile> ForReadingAsync(
            ClientSet clients, SharePath place, CancellationToken cancellationToken)
        {
            if (place.Socket is null)
            {
                SafeFileHandle handle = File.OpenHandle(place.Path, options: FileOptions.Asynchronous);
                return new OpenFile(null, handle)
                {
                    Length = RandomAccess.GetLength(handle),
                    Mode = File.GetUnixFileMode(handle) & Permissions,
                };
            }

            VirtioFsClient client = await clients.GetAsync(place, cancellationToken).ConfigureAwait(false);
            VirtioFsFile file = await client.OpenFileAsync(place.Path, null, cancellationToken).ConfigureAwait(false);
            FileStatus status = await file.GetStatusAsync(cancellationToken).ConfigureAwait(false);
            return new OpenFile(file, null) { Length = status.Length, Mode = (UnixFileMode)status.Permissions & Permissions };
        }

        public static async ValueTask<OpenFile> ForWritingAsync(
            ClientSet clients, SharePath place, UnixFileMode mode, CancellationToken cancellationToken)
        {
            // setuid, setgid and sticky are not copied, as cp(1) does without -p.
            mode &= (UnixFileMode)0x1FF;
            if (place.Socket is null)
            {
                var options = new FileStreamOptions
                {
                    Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = mode,
                };
                using var made = new FileStream(place.Path, options);
                return new OpenFile(null, File.OpenHandle(
                    place.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite, FileOptions.Asynchronous));
            }

            VirtioFsClient client = await clients.GetAsync(place, cancellationToken).ConfigureAwait(false);
            VirtioFsFile file = await client.OpenFileAsync(
                place.Path,
                new OpenFileOptions { Mode = FileMode.Create, Access = FileAccess.Write, Permissions = (uint)mode },
                cancellationToken).ConfigureAwait(false);
            return new OpenFile(file, null);
        }

        public ValueTask<int> ReadAsync(Memory<byte> destination, long offset, CancellationToken cancellationToken) =>
            shared is not null
                ? shared.ReadAsync(destination, offset, cancellationToken)
                : RandomAccess.ReadAsync(local!, destination, offset, cancellationToken);

        public ValueTask WriteAsync(ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken) =>
            shared is not null
                ? shared.WriteAsync(source, offset, cancellationToken)
                : RandomAccess.WriteAsync(local!, source, offset, cancellationToken);

        /// <summary>Closes the file; only now some errors of writing show.</summary>
        public ValueTask CloseAsync()
        {
            local?.Dispose();
            return shared?.DisposeAsync() ?? default;
        }

        public void Dispose() => local?.Dispose();
    }
}
