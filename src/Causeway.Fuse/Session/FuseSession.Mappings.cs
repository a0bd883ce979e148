using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>The DAX window: SETUPMAPPING and REMOVEMAPPING.</content>
public sealed partial class FuseSession
{
    // fuse_init_out.map_alignment: the size of a slot, which is also the most that Linux accepts.
    private const ushort MapAlignment = 21;

    // fuse_removemapping_one.
    private const int MappingSize = 16;

    private const FuseMappingFlags KnownMappingFlags = FuseMappingFlags.Read | FuseMappingFlags.Write;

    private static bool IsInWindow(IDaxWindow window, ulong offset, ulong length) =>
        offset % IDaxWindow.SlotSize == 0 && length % IDaxWindow.SlotSize == 0 && length != 0
        && length <= window.Size && offset <= window.Size - length;

    private ValueTask<int> SetupMapping(FuseRequest request)
    {
        if (request.Negotiated!.Window is not { } window)
        {
            return new(request.ReplyError(Errno.ENOSYS));
        }

        if (!request.TryRead(out FuseSetupMappingIn arguments) || !request.IsAtEnd()
            || !request.Require((arguments.Flags & ~KnownMappingFlags) == 0 && arguments.Flags != FuseMappingFlags.None)
            || !request.Require(IsInWindow(window, arguments.WindowOffset, arguments.Length))
            || !request.Require(arguments.FileOffset % IDaxWindow.SlotSize == 0)
            || !request.Require(IsRange(arguments.FileOffset, arguments.Length)))
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.SetupMappingAsync(request.Header.NodeId, arguments, request.Context));
    }

    // What is mapped is the window's business alone; Linux names the node of one of the files, or one that is gone.
    private ValueTask<int> RemoveMapping(FuseRequest request)
    {
        if (request.Negotiated!.Window is not { } window)
        {
            return new(request.ReplyError(Errno.ENOSYS));
        }

        if (!request.TryRead(out FuseRemoveMappingIn arguments))
        {
            return Refuse(request);
        }

        ReadOnlySpan<byte> entries = request.ReadRest().Span;
        if (entries.Length != arguments.Count * (long)MappingSize)
        {
            request.Refuse(Errno.EINVAL, FuseViolation.SizeMismatch);
            return Refuse(request);
        }

        // All or nothing: first the look, then the deed.
        for (ReadOnlySpan<byte> rest = entries; !rest.IsEmpty; rest = rest[MappingSize..])
        {
            FuseRemoveMappingOne one = ReadOne(rest);
            if (!request.Require(IsEverything(one) || IsInWindow(window, one.WindowOffset, one.Length)))
            {
                return Refuse(request);
            }
        }

        Errno error = request.HasNoExtensions() ? Errno.Success : Errno.EINVAL;
        while (!entries.IsEmpty && error == Errno.Success)
        {
            FuseRemoveMappingOne one = ReadOne(entries);
            error = IsEverything(one) ? window.Unmap(0, window.Size) : window.Unmap(one.WindowOffset, one.Length);
            entries = entries[MappingSize..];
        }

        return new(error == Errno.Success ? request.ReplyEmpty() : request.ReplyError(error));
    }

    private static bool IsEverything(in FuseRemoveMappingOne one) => one.Length == ulong.MaxValue;

    private static FuseRemoveMappingOne ReadOne(ReadOnlySpan<byte> bytes) =>
        System.Runtime.InteropServices.MemoryMarshal.Read<FuseRemoveMappingOne>(bytes);
}
